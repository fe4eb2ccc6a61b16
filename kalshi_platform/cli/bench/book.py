"""`kalshi-platform bench book`: how fast books are folded."""

from __future__ import annotations

from typing import Annotated

import typer

from kalshi_platform.cli.bench.findings import JsonFile, report_findings


def book(
    json_file: JsonFile = None,
    deltas: Annotated[int, typer.Option(help="Deltas of the hour.", min=100)] = 5_000_000,
    naive_deltas: Annotated[int, typer.Option(help="How many of them the naive way folds.", min=100)] = 250_000,
    markets: Annotated[int, typer.Option(help="Markets they belong to.", min=1)] = 1_000,
    rounds: Annotated[int, typer.Option(help="Rounds, the naive way in turn.", min=1)] = 3,
) -> None:
    """An hour of deltas to every minute's book of every market: deltas a second.

    Exits with 1 when the books are not those that the naive way finds.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.bench.book import BookBench, bench_book, shown

    options = BookBench(deltas=deltas, naive_deltas=naive_deltas, markets=markets, rounds=rounds)
    findings = bench_book(options, typer.echo, SYSTEM_CLOCK)
    typer.echo(f"\n{shown(findings)}")
    report_findings(findings, json_file)
