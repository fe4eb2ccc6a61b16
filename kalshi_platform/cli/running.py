"""What all commands share: logging, exit codes, and how an error is told."""

from __future__ import annotations

import sys

from kalshi_platform.errors import (
    AnotherWriter,
    ConfigurationError,
    KalshiPlatformError,
    LeaseHeld,
    SchemaMismatch,
    UnknownPartition,
)

EXIT_CODES: tuple[tuple[type[KalshiPlatformError], int], ...] = (
    (ConfigurationError, 2),
    (SchemaMismatch, 2),
    (UnknownPartition, 2),
    (AnotherWriter, 3),
    (LeaseHeld, 3),
)
"""0: done or stopped as asked. 2: wrong or missing settings. 3: somebody else does this already. 1: anything else."""


def set_up_logs(*, verbose: bool) -> None:
    """Log as the settings say. Raises ConfigurationError."""
    if "--help" in sys.argv:
        return  # nothing is logged, and reading the settings would take longer than the help itself
    from kalshi_platform.config import load_logs
    from kalshi_platform.monitoring.logs import set_up_logging

    set_up_logging(load_logs(), verbose=verbose)


def report(error: KalshiPlatformError) -> None:
    """Print an error as a person would want to read it."""
    if isinstance(error, ConfigurationError):
        lines = [f"  - {problem}" for problem in error.problems]
        print("kalshi-platform: the configuration cannot work:", *lines, sep="\n", file=sys.stderr)
    else:
        print(f"kalshi-platform: {error}", file=sys.stderr)
