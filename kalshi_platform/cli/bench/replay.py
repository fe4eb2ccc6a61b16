"""`kalshi-platform bench replay`: how fast an hour of the lake is replayed with the books beside."""

from __future__ import annotations

from typing import Annotated

import typer

from kalshi_platform.cli.bench.findings import JsonFile, bench_folder, report_findings


def replay(
    json_file: JsonFile = None,
    deltas: Annotated[int, typer.Option(help="Order-book deltas of the hour, about.", min=100)] = 5_000_000,
    naive_deltas: Annotated[int, typer.Option(help="The same for the naive way.", min=100)] = 500_000,
    markets: Annotated[int, typer.Option(help="Markets; the busiest has about a tenth of them.", min=1)] = 2_000,
    rounds: Annotated[int, typer.Option(help="Rounds, the naive way in turn.", min=1)] = 3,
) -> None:
    """An hour of the lake in the order of time, every market's book beside: deltas a second and memory.

    With --deltas 20000000 --rounds 1 it shows that memory does not grow with the hour. Exits with 1 when deltas were
    lost, or the books at the end are not those that the naive way finds.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.bench.replay.benchmark import ReplayBench, bench_replay, shown

    with bench_folder() as folder:
        options = ReplayBench(folder=folder, deltas=deltas, naive_deltas=naive_deltas, markets=markets, rounds=rounds)
        findings = bench_replay(options, typer.echo, SYSTEM_CLOCK)
    typer.echo(f"\n{shown(findings)}")
    report_findings(findings, json_file)
