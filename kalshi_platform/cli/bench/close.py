"""`kalshi-platform bench close`: how fast an hour is closed, and in how much memory."""

from __future__ import annotations

from typing import Annotated

import typer

from kalshi_platform.cli.bench.findings import JsonFile, bench_folder, report_findings


def close(
    json_file: JsonFile = None,
    rows: Annotated[
        int, typer.Option(help="Input rows of the hour, of all gatherers together.", min=1_000)
    ] = 2_000_000,
    naive_rows: Annotated[int, typer.Option(help="The same for the naive way.", min=1_000)] = 120_000,
    rounds: Annotated[int, typer.Option(help="Closes of the hour, the naive way in turn.", min=1)] = 2,
    gatherers: Annotated[int, typer.Option(help="Gatherers.", min=1)] = 3,
    overlap: Annotated[float, typer.Option(help="Share of the rows that every gatherer holds.", min=0, max=1)] = 0.9,
    markets: Annotated[int, typer.Option(help="Markets.", min=1)] = 2_000,
    missing: Annotated[float, typer.Option(help="Share of the rows that production lacks at first.", min=0, max=1)] = 0,
    bucket_rows: Annotated[int, typer.Option(help="As KALSHI_CLOSE_BUCKET_ROWS.", min=1)] = 500_000,
    parallel: Annotated[int, typer.Option(help="As KALSHI_CLOSE_PARALLEL.", min=1)] = 2,
) -> None:
    """An hour that the live merge has brought, closed: input rows a second, memory.

    With --rows 20000000 --rounds 1 it shows that memory does not grow with the hour. Exits with 1 when the close does
    not come out as it should.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.bench.close.benchmark import CloseBench, bench_close, shown

    with bench_folder() as folder:
        options = CloseBench(
            folder=folder, rows=rows, naive_rows=naive_rows, rounds=rounds, gatherers=gatherers, overlap=overlap,
            markets=markets, missing=missing, settings={"close_bucket_rows": bucket_rows, "close_parallel": parallel},
        )  # fmt: skip
        findings = bench_close(options, typer.echo, SYSTEM_CLOCK)
    typer.echo(f"\n{shown(findings)}")
    report_findings(findings, json_file)
