"""What schedules begin with: a skip reason while a setting is missing or a database is away, and the scheduled time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import TypeVar

import dagster as dg

from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.orchestration.failures import collect_problems, describe_problems
from kalshi_platform.orchestration.partitions import RANGE_END, RANGE_START

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


def with_run_keys(context: dg.ScheduleEvaluationContext, requests: Sequence[dg.RunRequest]) -> list[dg.RunRequest]:
    """Give each request a key, without which Dagster refuses several of one tick: its time, partitions and assets.

    The time makes them other keys at the next tick, so that what failed can be requested again.
    """
    at = scheduled_time(context)
    return [
        dg.RunRequest(
            run_key=f"{at:%Y-%m-%dT%H:%M} {_content(request)}",
            run_config=request.run_config,
            tags=request.tags,
            job_name=request.job_name,
            asset_selection=request.asset_selection,
            partition_key=request.partition_key,
        )
        for request in requests
    ]


def _content(request: dg.RunRequest) -> str:
    """Name what distinguishes a request from others of the same tick."""
    tags = request.tags
    partitions = request.partition_key or f"{tags.get(RANGE_START, '')}..{tags.get(RANGE_END, '')}"
    assets = ",".join(sorted(key.to_user_string() for key in request.asset_selection or ()))
    return f"{partitions} {sha256(assets.encode()).hexdigest()[:12]}"
