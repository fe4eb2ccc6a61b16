"""`kalshi-platform up`: runs the whole platform on this machine."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import typer

from kalshi_platform.cli.console import log_level_at_least, print_line


def up(
    simulate: bool = typer.Option(False, "--simulate", help="Use a simulated exchange instead of the configured one."),
    headless: bool = typer.Option(
        False, "--headless", help="No Dagster and no UI: gatherers and merge as children; ends with open exports."
    ),
    seconds: float = typer.Option(0.0, "--seconds", help="Stop after this long (0: run until Ctrl-C).", min=0.0),
    databases_only: bool = typer.Option(
        False, "--databases-only", help="Only the local databases, for `dagster dev` or single commands."
    ),
    data: Path = typer.Option(Path("data"), "--data", help="Folder of databases, logs, state and the local lake."),
    port: int = typer.Option(0, "--port", help="Port of the UI (0: 3000, or a free one).", min=0, max=65535),
    markets: int = typer.Option(60, "--markets", help="Markets of the simulated exchange.", min=1),
    rate: float = typer.Option(200.0, "--rate", help="Messages per second of the simulated exchange.", min=0.0),
    seed: int = typer.Option(1, "--seed", help="Seed of the simulated exchange."),
    no_past: bool = typer.Option(
        False, "--no-past", help="With --simulate: begin now, instead of some hours ago and catching up with the time."
    ),
    truth: Path | None = typer.Option(None, "--truth", help="Folder for the simulated exchange's own ledger."),
) -> None:
    """Bring up databases, gatherers, live merge, lake and the Dagster UI; Ctrl-C stops all of it."""
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.demo.past import DemoPast
    from kalshi_platform.local.processes.stop_signals import stop_on_signals
    from kalshi_platform.local.run_up import run_up
    from kalshi_platform.local.simulator_process import SimulationOptions
    from kalshi_platform.local.stack import StackOptions

    stop = threading.Event()
    stop_on_signals(stop)
    simulation = SimulationOptions(markets, rate, seed, truth.absolute() if truth else None) if simulate else None
    has_past = simulate and not (headless or databases_only or no_past)
    options = StackOptions(
        data_dir=data.absolute(),
        simulation=simulation,
        databases_only=databases_only,
        headless=headless,
        ui_port=port or None,
        past=DemoPast(data.absolute(), print_line, SYSTEM_CLOCK) if has_past else None,
    )
    with log_level_at_least(logging.WARNING):
        run_up(options, stop, seconds or None, print_line, SYSTEM_CLOCK)
