"""`kalshi-platform query candles`: candles of markets."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from kalshi_platform.cli.query.answers import (
    AsCsv,
    AsJson,
    From,
    Mark,
    OfMarkets,
    To,
    options_in_errors,
    parse_range,
    print_answer,
)
from kalshi_platform.errors import ConfigurationError

_PERIODS = ("1m", "1h", "1d")


def candles(
    start: From,
    tickers: OfMarkets = None,
    end: To = "",
    period: Annotated[str, typer.Option(help="1m, 1h or 1d.")] = "1m",
    mark: Mark = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Candles of the periods that begin in a range (aggregates/candles_…)."""
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake import reader
    from kalshi_platform.lake.reader.tables import CandlePeriod

    if period not in _PERIODS:
        raise ConfigurationError([f"--period {period}: there are candles of {', '.join(_PERIODS)}"])
    low, high = parse_range(start, end)
    holes: reader.Holes = "mark" if mark else "raise"
    with options_in_errors():
        found = reader.candles(load_lake(), low, high, tickers or None, period=cast(CandlePeriod, period), holes=holes)
    print_answer(found, as_json=as_json, as_csv=as_csv)
