"""`kalshi-platform bench export`: how fast an hour of production becomes a partition of the lake, and how small."""

from __future__ import annotations

from typing import Annotated

import typer

from kalshi_platform.cli.bench.findings import JsonFile, bench_folder, report_findings


def export(
    json_file: JsonFile = None,
    rows: Annotated[int, typer.Option(help="Order-book deltas of the hour, about.", min=100)] = 5_000_000,
    naive_rows: Annotated[int, typer.Option(help="The same for the naive way.", min=100)] = 500_000,
    rounds: Annotated[int, typer.Option(help="Rounds, the naive way in turn.", min=1)] = 3,
    markets: Annotated[int, typer.Option(help="Markets; the busiest has about a tenth of the rows.", min=1)] = 2_000,
    lake: Annotated[
        str,
        typer.Option(help="Compare the files of this lake, all its data sets, instead of those just exported."),
    ] = "",
) -> None:
    """PostgreSQL to a published partition: rows a second, memory, bytes a row beside plain Polars and pyarrow.

    With --rows 20000000 --rounds 1 it shows how much memory a big hour takes. Exits with 1 when rows were lost, or two
    exports of the same rows differ in a byte.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.bench.export.benchmark import ExportBench, bench_export, shown
    from kalshi_platform.lake.settings import LakeSettings

    with bench_folder() as folder:
        options = ExportBench(
            folder=folder,
            rows=rows,
            naive_rows=naive_rows,
            rounds=rounds,
            markets=markets,
            lake=LakeSettings(lake) if lake else None,
        )
        findings = bench_export(options, typer.echo, SYSTEM_CLOCK)
    typer.echo(f"\n{shown(findings)}")
    report_findings(findings, json_file)
