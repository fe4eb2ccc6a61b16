"""`kalshi-platform bench soak`: a long steady run, in which nothing may grow."""

from __future__ import annotations

import logging
import tempfile
import threading
from pathlib import Path

import typer

from kalshi_platform.cli.console import log_level_at_least, print_lines


def soak(
    seconds: float = typer.Option(1_800.0, "--seconds", help="How long the exchange trades (at least 600)."),
    rate: float = typer.Option(2_000.0, "--rate", help="Messages per second of the exchange; every gatherer gets all."),
    gatherers: int = typer.Option(1, "--gatherers", help="Gatherers, each with a database server."),
    markets: int = typer.Option(200, "--markets", help="Markets of the simulated exchange."),
    seed: int = typer.Option(1, "--seed", help="Seed of the exchange."),
    json_file: Path | None = typer.Option(None, "--json", help="Write figures and samples to this file."),
    plot: Path | None = typer.Option(None, "--plot", help="Draw memory, lag, threads and handles to this PNG file."),
    data: Path | None = typer.Option(None, "--data", help="New or empty folder for everything; removed at the end."),
    keep: bool = typer.Option(False, "--keep", help="Leave databases and logs where they are."),
) -> None:
    """Let gatherers record a steady stream, watch them, and say whether anything of them grows.

    Judged over the last two thirds, and not before five minutes have passed: memory (slope over that time at most 4 MiB
    or 2 %), lag (p50: 50 ms or 25 %, p99: 250 ms or 50 %), threads (none more), file handles (2). At the end every
    published delta and trade must be committed exactly once.
    Exits with 0 only then. 1: something grew or is missing. 2: wrong options.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.bench.soak.soak import SoakOptions, run_soak
    from kalshi_platform.local.processes.stop_signals import stop_on_signals

    stop = threading.Event()
    stop_on_signals(stop)
    folder = Path(tempfile.mkdtemp(prefix="kalshi-soak-")) if data is None else data.absolute()
    if data is None:
        folder.chmod(0o711)
    options = SoakOptions(
        seconds=seconds, rate=rate, gatherers=gatherers, markets=markets, seed=seed, data_dir=folder, keep=keep,
        json_file=json_file, plot_file=plot,
    )  # fmt: skip
    try:
        with log_level_at_least(logging.ERROR):
            flat = run_soak(options, stop, print_lines, SYSTEM_CLOCK)
    finally:
        if data is None and not keep and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    if not flat:
        raise typer.Exit(1)
