"""`kalshi-platform bench gatherer`: how fast a gatherer records."""

from __future__ import annotations

from typing import Annotated

import typer

from kalshi_platform.cli.bench.findings import JsonFile, bench_folder, report_findings


def gatherer(
    json_file: JsonFile = None,
    messages: Annotated[int, typer.Option(help="Messages of a round at full speed.", min=100)] = 400_000,
    rounds: Annotated[int, typer.Option(help="Rounds at full speed, the naive way in turn.", min=1)] = 3,
    markets: Annotated[int, typer.Option(help="Markets of the venue.", min=1)] = 500,
    seconds: Annotated[
        float, typer.Option(help="Length of the run at each offered rate; 0 leaves these out.", min=0.0)
    ] = 20.0,
    rate: Annotated[
        list[int] | None, typer.Option(help="Offered messages per second, for latency (repeatable).", min=1)
    ] = None,
) -> None:
    """Simulated exchange to sockets to committed rows: messages a second, latency, CPU, memory.

    The whole gatherer with the shipped schema, ledger and a durable server. Exits with 1 when a message was lost.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.bench.gatherer.benchmark import GathererBench, bench_gatherer, shown

    with bench_folder() as folder:
        options = GathererBench(
            folder=folder, messages=messages, rounds=rounds, markets=markets, seconds=seconds,
            rates=() if seconds == 0 else tuple(rate) if rate else GathererBench.rates,
        )  # fmt: skip
        findings = bench_gatherer(options, typer.echo, SYSTEM_CLOCK)
    typer.echo(f"\n{shown(findings)}")
    report_findings(findings, json_file)
