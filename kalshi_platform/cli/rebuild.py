"""`kalshi-platform rebuild`: decodes the frames of an hour again, and brings a gatherer's tables up to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.cli.progress import progress_shown
from kalshi_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from kalshi_platform.archive.compare_rows import RebuiltTable
    from kalshi_platform.archive.rebuild import Rebuilt


def rebuild(
    gatherer: str = typer.Argument(..., metavar="GATHERER", help="Which gatherer, as named in KALSHI_GATHERERS."),
    hour: str = typer.Argument(..., metavar="HOUR", help="The UTC hour in which the frames were received."),
    overwrite: bool = typer.Option(
        False, "--overwrite", help="Also replace values that are there and differ from what the frames give now."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be written; change nothing."),
) -> None:
    """Make rows of a gatherer's tables from its frames again: fill what they lack, and insert what is missing.

    Reads the lake (raw/frames), and the journal where this is the gatherer's host. Exit 1 when something differs that
    this run may not change: a value that is there (see --overwrite), or rows that no frame gives, which always stay.
    """
    from kalshi_platform.archive.rebuild import rebuild_tables
    from kalshi_platform.cli.close_hour import parse_hour
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_bounds, load_gatherer, load_lake

    start, settings, bounds = parse_hour(hour), load_gatherer(gatherer), load_bounds()
    try:
        lake = load_lake()
    except ConfigurationError:
        print_line("no lake is configured: only the journal on this host is read")
        lake = None
    with progress_shown(f"rebuilding {gatherer} {hour}"):
        done = rebuild_tables(lake, settings, start, bounds, SYSTEM_CLOCK, overwrite=overwrite, dry_run=dry_run)
    for line in describe_rebuilt(done, dry_run=dry_run):
        print_line(line)
    if done.differs:
        raise typer.Exit(1)


def describe_rebuilt(done: Rebuilt, *, dry_run: bool) -> list[str]:
    """Describe what became of an hour: where its frames were, then each table. Pure."""
    sources = f"{done.from_lake} segments of the lake, {done.from_journal} of the journal"
    damages = f", {done.damages} damages" if done.damages else ""
    lines = [f"{done.gatherer} {done.hour:%Y-%m-%dT%H}: {done.frames:,} frames from {sources}{damages}"]
    if not done.frames:
        lines.append("no frames of this hour are kept: nothing can be made of them")
    lines += [_describe_table(name, table, done, dry_run=dry_run) for name, table in done.tables.items()]
    if any(each.filled or each.inserted or (each.changed and done.overwritten) for each in done.tables.values()):
        lines.append(
            "production gets inserted rows with the next merge, filled values with:"
            f" kalshi-platform close-hour {done.hour:%Y-%m-%dT%H} --fill"
        )
    return lines


def _describe_table(name: str, table: RebuiltTable, done: Rebuilt, *, dry_run: bool) -> str:
    verb = "would be " if dry_run else ""
    parts = [f"{table.rows:,} rows, {table.equal:,} equal"]
    if table.filled:
        parts.append(f"{table.filled:,} {verb}filled ({_columns(table.filled_columns)})")
    if table.inserted:
        parts.append(f"{table.inserted:,} {verb}inserted")
    if table.changed:
        kept = f"{verb}overwritten" if done.overwritten else "differ and stay, see --overwrite"
        parts.append(f"{table.changed:,} {kept} ({_columns(table.changed_columns)})")
    if table.refused:
        parts.append(f"{table.refused:,} refused by the database, as before")
    if table.unexplained:
        parts.append(f"{table.unexplained:,} in the table that no frame gives")
    return f"{name}: {', '.join(parts)}"


def _columns(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
