"""What all commands share: logging, exit codes, and how an error is told."""

from __future__ import annotations

import logging
import sys
import time

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


def set_up_logging(*, verbose: bool) -> None:
    """Log to standard error, UTC, one line per record."""
    formatter = logging.Formatter("%(asctime)sZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    for noisy in ("urllib3", "botocore", "boto3", "s3transfer", "matplotlib", "asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def report(error: KalshiPlatformError) -> None:
    """Print an error as a person would want to read it."""
    if isinstance(error, ConfigurationError):
        lines = [f"  - {problem}" for problem in error.problems]
        print("kalshi-platform: the configuration cannot work:", *lines, sep="\n", file=sys.stderr)
    else:
        print(f"kalshi-platform: {error}", file=sys.stderr)
