"""`kalshi-platform prove`: shows that nothing is lost, doubled or wrong."""

from __future__ import annotations

import logging
import tempfile
import threading
from enum import StrEnum
from pathlib import Path

import typer

from kalshi_platform.cli.console import log_level_at_least, print_lines
from kalshi_platform.cli.progress import progress_shown


class Faults(StrEnum):
    """How hard the run is made."""

    NONE = "none"
    STANDARD = "standard"
    BRUTAL = "brutal"
    DATABASES = "databases"
    KILLS = "kills"
    GROUND = "ground"
    DAY = "day"
    WEEKS = "weeks"
    HEALING = "healing"
    OPERATION = "operation"


def prove(
    seconds: float = typer.Option(60.0, "--seconds", help="How long the exchange trades."),
    gatherers: int = typer.Option(3, "--gatherers", help="Independent gatherers, each with a database server."),
    rate: float = typer.Option(500.0, "--rate", help="Messages per second of the whole exchange; all get all."),
    markets: int = typer.Option(60, "--markets", help="Markets of the simulated exchange."),
    seed: int = typer.Option(1, "--seed", help="Seed of the exchange and of the faults."),
    faults: Faults = typer.Option(
        Faults.STANDARD,
        "--faults",
        help="standard: cuts, a kill, a dropped frame, 429, a pause. brutal: also a database away, a stall, unknown"
        " frames, a skewed clock. databases: each gatherer's database server stopped for 30 s in turn (at least 10 +"
        " 45 s per gatherer). kills: SIGKILL of each gatherer in turn (at least 10 + 13 s per gatherer). ground: what"
        " was stored is lost or set back: a gatherer's database restored from a copy, failed over to a lagging replica,"
        " its server killed, production restored, clocks stepped, a second process of a name, a poison ticker, a flood"
        " of unknown frames, an export whose store fails, partitions dropped; and every alarm must come (180 s"
        " for all, at least 40). day: a simulated day by a fast clock; --hours, --deltas, --speed and --samples"
        " instead of --seconds and --rate. weeks: --days at --speed (2000, say) with retention on; what databases take"
        " on disk must become flat.",
    ),
    hours: int = typer.Option(
        24, "--hours", help="day: the last so many of the day; one before and one after come too."
    ),
    deltas: int = typer.Option(2_000_000, "--deltas", help="day: changes of books in these hours."),
    speed: float = typer.Option(300.0, "--speed", help="day, weeks, operation: seconds of the exchange in a second."),
    days: int = typer.Option(14, "--days", help="weeks: how many."),
    samples: int = typer.Option(1_000, "--samples", help="day: random books that are compared."),
    json_file: Path | None = typer.Option(None, "--json", help="Write the findings to this file."),
    plot: Path | None = typer.Option(None, "--plot", help="Draw who recorded when to this PNG file."),
    data: Path | None = typer.Option(None, "--data", help="New or empty folder for everything; removed at the end."),
    keep: bool = typer.Option(False, "--keep", help="Leave databases, lake, truth and logs where they are."),
) -> None:
    """Run the whole chain against the simulated exchange, inject faults, compare with the exchange's own ledger.

    Exits with 0 only if nothing is missing, doubled or wrong. A single gatherer cannot record what a fault kept from
    it: then every missing row must lie near an injected fault, and every delta in a hole that its ledger declares.
    1: not proven. 2: wrong options.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lab.proof.healing.healing import prove_healing
    from kalshi_platform.lab.proof.options import ProofOptions
    from kalshi_platform.lab.proof.run import prove as run_proof
    from kalshi_platform.lab.proof.simulated.day import prove_day
    from kalshi_platform.lab.proof.simulated.operation import prove_operation
    from kalshi_platform.lab.proof.simulated.options import DayOptions, OperationOptions, WeeksOptions
    from kalshi_platform.lab.proof.simulated.weeks import prove_weeks
    from kalshi_platform.local.processes.stop_signals import stop_on_signals

    stop = threading.Event()
    stop_on_signals(stop)
    options = ProofOptions(
        seconds=seconds,
        gatherers=gatherers,
        rate=rate,
        markets=markets,
        seed=seed,
        faults=faults.value,
        data_dir=Path(tempfile.mkdtemp(prefix="kalshi-proof-")) if data is None else data.absolute(),
        keep=keep,
        json_file=json_file,
        plot_file=plot,
    )
    if data is None:
        options.data_dir.chmod(0o711)
    try:
        with log_level_at_least(logging.ERROR), progress_shown(f"proving, faults {faults.value}"):
            if faults is Faults.DAY:
                day = DayOptions.of(options, hours=hours, deltas=deltas, speed=speed, samples=samples)
                proven = prove_day(day, stop, print_lines, SYSTEM_CLOCK)
            elif faults is Faults.WEEKS:
                weeks = WeeksOptions.of(options, days=days, speed=speed)
                proven = prove_weeks(weeks, stop, print_lines, SYSTEM_CLOCK)
            elif faults is Faults.HEALING:
                proven = prove_healing(options, stop, print_lines, SYSTEM_CLOCK)
            elif faults is Faults.OPERATION:
                operation = OperationOptions.of(options, speed=speed)
                proven = prove_operation(operation, stop, print_lines, SYSTEM_CLOCK)
            else:
                proven = run_proof(options, stop, print_lines, SYSTEM_CLOCK)
    finally:
        if data is None and not keep and options.data_dir.exists() and not any(options.data_dir.iterdir()):
            options.data_dir.rmdir()
    if not proven:
        raise typer.Exit(1)
