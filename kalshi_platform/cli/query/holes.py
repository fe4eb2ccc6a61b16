"""`kalshi-platform query holes`: where changes of books may be missing."""

from __future__ import annotations

from kalshi_platform.cli.query.answers import (
    AsCsv,
    AsJson,
    From,
    Hot,
    OfMarkets,
    To,
    parse_range,
    print_answer,
    production_url,
)


def holes(
    start: From,
    tickers: OfMarkets = None,
    end: To = "",
    hot: Hot = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Where changes of a market's book may be missing within a range, and why; no row where all is there."""
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake import reader

    low, high = parse_range(start, end)
    found = reader.holes(load_lake(), low, high, tickers or None, production_url=production_url(hot=hot))
    print_answer(found, as_json=as_json, as_csv=as_csv)
