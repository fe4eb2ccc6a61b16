"""`kalshi-platform query estimate`: how much a range is before it is read."""

from __future__ import annotations

from typing import Annotated

import typer

from kalshi_platform.cli.query.answers import AsCsv, AsJson, From, To, parse_range, print_answer


def estimate(
    start: From,
    datasets: Annotated[
        list[str], typer.Argument(help="Data sets: raw/trades, processed/quotes, …", metavar="DATASET…")
    ],
    end: To = "",
    ticker: Annotated[list[str] | None, typer.Option(help="Only files that may hold this market; repeatable.")] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Partitions, files, rows and bytes of a range, from the manifests alone."""
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake import reader

    low, high = parse_range(start, end)
    found = reader.estimate(load_lake(), datasets, low, high, ticker or None)
    print_answer(found, as_json=as_json, as_csv=as_csv)
