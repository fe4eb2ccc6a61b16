"""Errors of the rooms as Dagster failures: permanent ones are not retried, transient ones are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import dagster as dg

from kalshi_platform.errors import ConfigurationError, KalshiPlatformError, PermanentError
from kalshi_platform.monitoring.plain_text import plain

RETRY = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL)
"""For work that may be repeated: two more attempts, after 10 and 20 s."""


@contextmanager
def as_failure() -> Iterator[None]:
    """Turn this package's errors into a Failure whose text tells what to do. No message holds a secret."""
    try:
        yield
    except ConfigurationError as error:
        raise dg.Failure(
            description="settings are missing or wrong:\n" + "\n".join(map(plain, error.problems)),
            metadata={"problems": dg.MetadataValue.md("\n".join(f"- {plain(problem)}" for problem in error.problems))},
            allow_retries=False,
        ) from error
    except KalshiPlatformError as error:
        raise dg.Failure(
            description=plain(f"{type(error).__name__}: {error}"), allow_retries=not isinstance(error, PermanentError)
        ) from error


def collect_problems(*loaders: Callable[[], object]) -> list[str]:
    """Call loaders of settings; return everything that is missing or wrong, with its remedy, a line each."""
    problems: list[str] = []
    for load in loaders:
        try:
            load()
        except ConfigurationError as error:
            problems.extend(error.problems)
    return list(dict.fromkeys(problems))


def describe_problems(problems: Iterable[str]) -> str:
    """Say why something is skipped: every missing or wrong setting once, with its remedy, a line each."""
    return "\n".join(["not configured:", *dict.fromkeys(problems)])
