"""Errors of the rooms → Dagster failures: permanent ones are not retried, transient ones are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import dagster as dg

from kalshi_platform.errors import ConfigurationError, KalshiPlatformError, PermanentError

_MISSING = re.compile(r"(\w+) is missing\b")

RETRY = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL)
"""For work that may be repeated: two more attempts, after 10 and 20 s."""


@contextmanager
def as_failure() -> Iterator[None]:
    """Turn this package's errors into a Failure whose text tells what to do. No message holds a secret."""
    try:
        yield
    except ConfigurationError as error:
        raise dg.Failure(
            description="settings are missing or wrong:\n" + "\n".join(error.problems),
            metadata={"problems": dg.MetadataValue.md("\n".join(f"- {problem}" for problem in error.problems))},
            allow_retries=False,
        ) from error
    except KalshiPlatformError as error:
        raise dg.Failure(
            description=f"{type(error).__name__}: {error}", allow_retries=not isinstance(error, PermanentError)
        ) from error


def not_configured(problems: Iterable[str]) -> str:
    """Say briefly why something is skipped: the names of missing settings, and wrong ones in full."""
    unique = list(dict.fromkeys(problems))
    missing = [match[1] for match in map(_MISSING.match, unique) if match]
    wrong = [problem for problem in unique if not _MISSING.match(problem)]
    lines = [f"not configured: {', '.join(missing)} missing (kalshi-platform doctor tells more)"] if missing else []
    return "\n".join([*lines, *wrong])
