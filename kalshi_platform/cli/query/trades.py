"""`kalshi-platform query trades`: what was traded."""

from __future__ import annotations

from typing import Annotated

import typer

from kalshi_platform.cli.query.answers import (
    AsCsv,
    AsJson,
    From,
    Hot,
    Mark,
    OfMarkets,
    To,
    options_in_errors,
    parse_range,
    print_answer,
    production_url,
)


def trades(
    start: From,
    tickers: OfMarkets = None,
    end: To = "",
    raw: Annotated[bool, typer.Option("--raw", help="From raw/trades: scaled integers, with provenance.")] = False,
    mark: Mark = False,
    hot: Hot = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """The trades of a range, by market and time: dollars and contracts (processed/trades), or as merged (--raw)."""
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake import reader

    low, high = parse_range(start, end)
    with options_in_errors():
        found = reader.trades(
            load_lake(),
            low,
            high,
            tickers or None,
            layer="raw" if raw else "processed",
            holes="mark" if mark else "raise",
            production_url=production_url(hot=hot),
        )
    print_answer(found, as_json=as_json, as_csv=as_csv)
