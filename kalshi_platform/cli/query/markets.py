"""`kalshi-platform query markets`: what markets were, and how they were settled."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from kalshi_platform.cli.query.answers import AsCsv, AsJson, OfMarkets, options_in_errors, parse_moment, print_answer

_SHOWN = (
    "ticker", "title", "status", "open_time", "close_time", "strike_type", "floor_strike", "cap_strike", "result",
    "settlement_value_dollars",
)  # fmt: skip


def markets(
    day: Annotated[str, typer.Option("--day", help="The UTC day: 2026-11-23.")],
    tickers: OfMarkets = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Markets as they were known at the end of a day (processed/markets); --json and --csv give all columns."""
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake import reader

    start = parse_moment(day, "--day").replace(hour=0, minute=0, second=0, microsecond=0)
    with options_in_errors(has_mark=False):
        found = reader.markets(load_lake(), start, start + timedelta(days=1), tickers or None)
    if not (as_json or as_csv):
        found = found.select(name for name in _SHOWN if name in found.columns)
    print_answer(found, as_json=as_json, as_csv=as_csv)
