"""What all commands share: logging, exit codes, and printing."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import typer

from kalshi_platform.errors import (
    AnotherWriter,
    ConfigurationError,
    KalshiPlatformError,
    LockHeld,
    SchemaMismatch,
    Unfinished,
    UnknownPartition,
)
from kalshi_platform.monitoring.plain_text import plain

EXIT_CODES: tuple[tuple[type[KalshiPlatformError], int], ...] = (
    (ConfigurationError, 2),
    (SchemaMismatch, 2),
    (UnknownPartition, 2),
    (AnotherWriter, 3),
    (LockHeld, 3),
)
"""0: done, or stopped by a signal. 2: wrong or missing settings. 3: another process does this. 1: anything else."""


def set_up_logs(*, verbose: bool) -> None:
    """Log as the settings say. Raises ConfigurationError."""
    if "--help" in sys.argv:
        return  # nothing is logged, and reading the settings would take longer than the help itself
    from kalshi_platform.config import load_logs
    from kalshi_platform.monitoring.logs import set_up_logging

    set_up_logging(load_logs(), verbose=verbose)


@contextmanager
def log_level_at_least(level: int) -> Iterator[None]:
    """Log only from `level` on while the block runs, for commands that report by themselves; --verbose logs all."""
    rooms = logging.getLogger("kalshi_platform")
    before = rooms.level
    if logging.getLogger().level > logging.DEBUG:
        rooms.setLevel(level)
    try:
        yield
    finally:
        rooms.setLevel(before)


def print_line(text: str, *, err: bool = False) -> None:
    """Print one line; text from the wire in it neither forges lines nor controls the terminal."""
    typer.echo(plain(text), err=err)


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, colours: Mapping[str, str] = MappingProxyType({})
) -> bool:
    """Print a table, each cell made harmless, and return True; nothing, and False, where nobody sees a terminal.

    `colours`: of rows, by the text of their first cell.
    """
    if not sys.stdout.isatty():
        return False
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        first, *others = (plain(cell) for cell in row)
        table.add_row(Text(first, style=colours.get(row[0], "")), *(Text(cell) for cell in others))
    Console(file=sys.stdout).print(table)
    return True


def print_lines(text: str, *, err: bool = False) -> None:
    """Print a text of several lines, each made harmless."""
    for line in text.split("\n"):
        print_line(line, err=err)


def print_error(error: KalshiPlatformError) -> None:
    """Print an error for people: each problem of a configuration on a line of its own."""
    if isinstance(error, ConfigurationError | Unfinished):
        unfinished = isinstance(error, Unfinished)
        print_line(
            f"kalshi-platform: {'not everything is done' if unfinished else 'the configuration cannot work'}:", err=True
        )
        for each in error.remains if isinstance(error, Unfinished) else error.problems:
            print_line(f"  - {each}", err=True)
    else:
        print_line(f"kalshi-platform: {error}", err=True)
