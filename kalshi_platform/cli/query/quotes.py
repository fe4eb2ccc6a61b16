"""`kalshi-platform query quotes`: the best prices of markets."""

from __future__ import annotations

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


def quotes(
    start: From,
    tickers: OfMarkets = None,
    end: To = "",
    mark: Mark = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Every change of the best bid and offer within a range (processed/quotes)."""
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake import reader

    low, high = parse_range(start, end)
    with options_in_errors():
        found = reader.quotes(load_lake(), low, high, tickers or None, holes="mark" if mark else "raise")
    print_answer(found, as_json=as_json, as_csv=as_csv)
