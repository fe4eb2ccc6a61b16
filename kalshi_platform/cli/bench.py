"""`kalshi-platform bench`: how fast it is, each time beside the naive way, on the same data and server."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from kalshi_platform.cli.running import rooms_log_from
from kalshi_platform.cli.soak import soak

app = typer.Typer(help="Benchmarks, each beside the naive way, on the same data and server.", no_args_is_help=True)

app.command("soak")(soak)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the findings to this file.")]


@app.command()
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

    with _folder() as folder:
        options = GathererBench(
            folder=folder, messages=messages, rounds=rounds, markets=markets, seconds=seconds,
            rates=() if seconds == 0 else tuple(rate) if rate else GathererBench.rates,
        )  # fmt: skip
        findings = bench_gatherer(options, typer.echo, SYSTEM_CLOCK)
    typer.echo(f"\n{shown(findings)}")
    conclude(findings, json_file)


@app.command()
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

    with _folder() as folder:
        options = MergeBench(
            folder=folder, rows=rows, naive_rows=naive_rows, rounds=rounds, gatherers=gatherers, overlap=overlap
        )
        findings = bench_merge(options, typer.echo, SYSTEM_CLOCK)
    typer.echo(f"\n{shown(findings)}")
    conclude(findings, json_file)


@app.command()
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
    conclude(findings, json_file)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for servers and recordings, removed at the end; servers that run as another user may enter it."""
    with rooms_log_from(logging.ERROR), tempfile.TemporaryDirectory(prefix="kalshi-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder / "run"


def conclude(findings: Mapping[str, Any], json_file: Path | None) -> None:
    """Write the findings; exit with 1 when something was lost."""
    from kalshi_platform.lab.bench.result import write_json

    if json_file is not None:
        write_json(json_file, findings)
    for what in findings["lost"]:
        typer.echo(f"LOST: {what}", err=True)
    if findings["lost"]:
        raise typer.Exit(1)
