"""`kalshi-platform query book`: the book of a market at a moment."""

from __future__ import annotations

from typing import Annotated

import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.cli.query.answers import (
    AsCsv,
    AsJson,
    Hot,
    Mark,
    options_in_errors,
    parse_moment,
    print_answer,
    production_url,
)


def book(
    ticker: Annotated[str, typer.Argument(help="The market's ticker.", metavar="TICKER")],
    at: Annotated[str, typer.Option("--at", help="The moment: 2026-11-23T04:30 or any ISO 8601 time; UTC.")],
    mark: Mark = False,
    hot: Hot = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """The book at the end of a moment, seen from yes: bids and asks in dollars and contracts, best price first.

    Exits with 1 when it is not known to be exact; with --mark the best there is is shown, and what it is.
    """
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake import reader

    lake, moment, url = load_lake(), parse_moment(at, "--at"), production_url(hot=hot)
    found = reader.find_book(lake, ticker, moment, production_url=url)
    if not found.exact and (not mark or found.state == "unknown"):
        with options_in_errors():  # says why not
            reader.book_at(lake, ticker, moment, holes="mark" if mark else "raise", production_url=url)
    levels = reader.yes_levels(found.levels)
    if as_json or as_csv:
        levels = levels.with_columns(exact=found.exact)
    else:
        base = f"{found.base} of {found.base_ts.isoformat()}" if found.base_ts is not None else "nothing"
        print_line(f"{ticker} at {moment.isoformat()}: {found.state}, from the {base}")
    print_answer(levels, as_json=as_json, as_csv=as_csv)
