"""`kalshi-platform catalog …`: the lake's closed partitions as Apache Iceberg tables."""

from __future__ import annotations

import typer

from kalshi_platform.cli.backfill_trades import parse_day
from kalshi_platform.cli.console import print_line
from kalshi_platform.cli.progress import progress_shown
from kalshi_platform.errors import Unfinished

app = typer.Typer(no_args_is_help=True)


@app.callback()
def catalog() -> None:
    """The lake as tables of Apache Iceberg."""


@app.command("register")
def register(
    datasets: list[str] = typer.Argument(
        None,
        metavar="[DATASET]…",
        help="Data sets (raw/trades, processed/quotes, …); all of them without.",
        show_default=False,
    ),
    day: list[str] = typer.Option(
        [], "--day", metavar="DAY", help="A UTC day (2026-11-23) to look at, may be repeated; all days without."
    ),
    rebuild: bool = typer.Option(
        False,
        "--rebuild",
        help="Make the tables anew: after the lake was moved, or the catalog lost. No data is touched.",
    ),
) -> None:
    """Make the tables name the files of the lake's closed partitions (safe to repeat; nothing is rewritten).

    The catalog is in the production database, or where KALSHI_ICEBERG_CATALOG_URI says. Exit 1 when files could not be
    registered, and says which.
    """
    from kalshi_platform.config import load_iceberg, load_lake
    from kalshi_platform.lake.datasets import DATASETS
    from kalshi_platform.lake.iceberg.register import register as register_tables
    from kalshi_platform.lake.layout import find_dataset
    from kalshi_platform.lake.store import open_store
    from kalshi_platform.monitoring.progress import report_each

    wanted = [find_dataset(name) for name in datasets or ()] or list(DATASETS.values())
    days = [parse_day(each) for each in day] or None
    store, settings = open_store(load_lake()), load_iceberg()
    skipped: list[str] = []
    with progress_shown("registering tables"):
        for data in report_each("tables", wanted):
            for done in register_tables(store, settings, [data], days, rebuild=rebuild):
                changed = f"{done.commits} commits, {done.files_added} files added, {done.files_removed} removed"
                new = changed if done.commits else "nothing new"
                print_line(f"{data.key}: {done.files:,} files, {done.rows:,} rows ({new})")
                skipped += [f"{folder}: {reason}" for folder, reason in done.skipped.items()]
    if skipped:
        raise Unfinished(skipped)
