"""`kalshi-platform bench merge`: how fast the deduplicator merges a backlog."""

from __future__ import annotations

from typing import Annotated

import typer

from kalshi_platform.cli.bench.findings import JsonFile, bench_folder, report_findings


def merge(
    json_file: JsonFile = None,
    rows: Annotated[int, typer.Option(help="Input rows of a round, of all gatherers together.", min=100)] = 1_200_000,
    naive_rows: Annotated[int, typer.Option(help="The same for the naive way.", min=100)] = 240_000,
    rounds: Annotated[int, typer.Option(help="Rounds, the naive way in turn.", min=1)] = 3,
    gatherers: Annotated[int, typer.Option(help="Gatherers.", min=1)] = 3,
    overlap: Annotated[float, typer.Option(help="Share of the rows that every gatherer holds.", min=0, max=1)] = 0.9,
) -> None:
    """Several gatherers' backlog to production: input rows a second, memory.

    With --rows 5000000 --rounds 1 it shows how much memory a long backlog takes. Exits with 1 when production does not
    hold exactly what was sent.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.bench.merge.benchmark import MergeBench, bench_merge, shown

    with bench_folder() as folder:
        options = MergeBench(
            folder=folder, rows=rows, naive_rows=naive_rows, rounds=rounds, gatherers=gatherers, overlap=overlap
        )
        findings = bench_merge(options, typer.echo, SYSTEM_CLOCK)
    typer.echo(f"\n{shown(findings)}")
    report_findings(findings, json_file)
