"""What schedules begin with: is everything configured, and what is the time?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import dagster as dg

from kalshi_platform.errors import ConfigurationError, KalshiPlatformError
from kalshi_platform.orchestration.failures import not_configured

AnswerT = TypeVar("AnswerT")


def answer(ask: Callable[[], AnswerT], *loaders: Callable[[], object]) -> AnswerT | dg.SkipReason:
    """Ask, unless a loader of settings says what is missing; what cannot be found out now is a reason to skip too."""
    missing = missing_settings(*loaders)
    if missing:
        return dg.SkipReason(missing)
    try:
        return ask()
    except KalshiPlatformError as error:
        return dg.SkipReason(f"nothing can be said now: {error}")


def missing_settings(*loaders: Callable[[], object]) -> str | None:
    """Call loaders of settings; return what they miss, or None."""
    problems: list[str] = []
    for load in loaders:
        try:
            load()
        except ConfigurationError as error:
            problems.extend(error.problems)
    return not_configured(problems) if problems else None


def now_of(context: dg.ScheduleEvaluationContext) -> datetime:
    """The moment for which the schedule is evaluated."""
    return context.scheduled_execution_time.astimezone(UTC)


def start_of(partitions: dg.TimeWindowPartitionsDefinition) -> datetime:
    """The first moment that is part of a partition."""
    return datetime.fromtimestamp(partitions.start.timestamp(), tz=UTC)
