"""`kalshi-platform bench disk`: what a million order-book deltas take on disk, in each place that keeps them."""

from __future__ import annotations

from typing import Annotated

import typer

from kalshi_platform.cli.bench.findings import JsonFile, bench_folder, report_findings


def disk(
    json_file: JsonFile = None,
    rows: Annotated[int, typer.Option(help="Order-book deltas of the hour, about.", min=100)] = 1_000_000,
    markets: Annotated[int, typer.Option(help="Markets; the busiest has about a tenth of the rows.", min=1)] = 2_000,
    timeseries_url: Annotated[
        str, typer.Option(help="An empty database with TimescaleDB: the same in a gatherer's tables there.")
    ] = "",
    production_url: Annotated[
        str, typer.Option(help="An empty database with TimescaleDB: the same in production's tables there.")
    ] = "",
) -> None:
    """Bytes a million deltas in a gatherer's database, in production and in the lake; no naive way to compare with."""
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.bench.disk import DiskBench, bench_disk, shown

    with bench_folder() as folder:
        options = DiskBench(
            folder=folder, rows=rows, markets=markets, timeseries_url=timeseries_url, production_url=production_url
        )
        findings = bench_disk(options, typer.echo, SYSTEM_CLOCK)
    typer.echo(f"\n{shown(findings)}")
    report_findings(findings, json_file)
