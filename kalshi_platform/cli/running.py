"""What all commands share: logging, exit codes, and how an error is told."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
"""0: done or stopped as asked. 2: wrong or missing settings. 3: somebody else does this already. 1: anything else."""


def set_up_logs(*, verbose: bool) -> None:
    """Log as the settings say. Raises ConfigurationError."""
    if "--help" in sys.argv:
        return  # nothing is logged, and reading the settings would take longer than the help itself
    from kalshi_platform.config import load_logs
    from kalshi_platform.monitoring.logs import set_up_logging

    set_up_logging(load_logs(), verbose=verbose)


@contextmanager
def rooms_log_from(level: int) -> Iterator[None]:
    """Keep the rooms' logs to a level, for commands whose own lines tell enough; --verbose shows all of them."""
    rooms = logging.getLogger("kalshi_platform")
    before = rooms.level
    if logging.getLogger().level > logging.DEBUG:
        rooms.setLevel(level)
    try:
        yield
    finally:
        rooms.setLevel(before)


def tell(text: str, *, err: bool = False) -> None:
    """Print one line, whatever it is made of: text from the wire neither forges lines nor reaches the terminal."""
    typer.echo(plain(text), err=err)


def tell_lines(text: str, *, err: bool = False) -> None:
    """Print lines of our own making, each made harmless."""
    for line in text.split("\n"):
        tell(line, err=err)


def report(error: KalshiPlatformError) -> None:
    """Print an error as a person would want to read it."""
    if isinstance(error, ConfigurationError | Unfinished):
        unfinished = isinstance(error, Unfinished)
        tell(
            f"kalshi-platform: {'not everything is done' if unfinished else 'the configuration cannot work'}:", err=True
        )
        for each in error.remains if isinstance(error, Unfinished) else error.problems:
            tell(f"  - {each}", err=True)
    else:
        tell(f"kalshi-platform: {error}", err=True)
