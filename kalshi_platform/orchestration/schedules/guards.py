"""What schedules begin with: a skip reason while a setting is missing or a database is away, and the scheduled time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import dagster as dg

from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.orchestration.failures import collect_problems, describe_problems

ResultT = TypeVar("ResultT")


def evaluate_or_skip(evaluate: Callable[[], ResultT], *loaders: Callable[[], object]) -> ResultT | dg.SkipReason:
    """Evaluate a schedule, unless a loader of settings says what is missing. An error of the platform skips, too."""
    problems = collect_problems(*loaders)
    if problems:
        return dg.SkipReason(describe_problems(problems))
    try:
        return evaluate()
    except KalshiPlatformError as error:
        return dg.SkipReason(f"not known now: {error}")


def scheduled_time(context: dg.ScheduleEvaluationContext) -> datetime:
    """Return the moment for which the schedule is evaluated, UTC."""
    return context.scheduled_execution_time.astimezone(UTC)
