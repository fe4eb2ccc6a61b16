"""Closing hours and exporting days on time, and filling in what is missing."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import dagster as dg

from kalshi_platform.errors import ConfigurationError, KalshiPlatformError
from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration.failures import not_configured
from kalshi_platform.orchestration.jobs.batch import close_hours_job, export_days_job
from kalshi_platform.orchestration.keys import LAKE_DAILY, LAKE_RAW, PRODUCTION_HOURLY
from kalshi_platform.orchestration.partitions import (
    DAY,
    DAYS,
    HOURS,
    day_key,
    day_of,
    hour_key,
    hour_of,
)
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase
from kalshi_platform.orchestration.schedules.missing import (
    LOOK_BACK,
    Stage,
    being_made,
    lacking,
    materialized,
    requests,
)

_RUNNING = dg.DefaultScheduleStatus.RUNNING
HOURLY_STAGE = Stage(HOURS, PRODUCTION_HOURLY, LAKE_RAW)
DAILY_STAGE = Stage(DAYS, (), LAKE_DAILY)


def missing_settings(*loaders: Callable[[], object]) -> str | None:
    """Call loaders of settings; return what they miss, or None."""
    problems: list[str] = []
    for load in loaders:
        try:
            load()
        except ConfigurationError as error:
            problems.extend(error.problems)
    return not_configured(problems) if problems else None


def _start_of(partitions: dg.TimeWindowPartitionsDefinition) -> datetime:
    return datetime.fromtimestamp(partitions.start.timestamp(), tz=UTC)


@dg.schedule(
    job=close_hours_job,
    cron_schedule="5 * * * *",
    execution_timezone="UTC",
    name="close_hours_schedule",
    default_status=_RUNNING,
    description="At five past every hour: close the hour that just ended in production, and export it.",
)
def close_hours_schedule(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> dg.RunRequest | dg.SkipReason:
    missing = missing_settings(production_database.settings, lake.settings)
    if missing:
        return dg.SkipReason(missing)
    hour = _now(context).replace(minute=0, second=0, microsecond=0) - HOUR
    return dg.RunRequest(partition_key=hour_key(hour))


@dg.schedule(
    job=export_days_job,
    cron_schedule="30 0 * * *",
    execution_timezone="UTC",
    name="export_days_schedule",
    default_status=_RUNNING,
    description="Every day at 00:30 UTC: the daily data sets of the day that ended.",
)
def export_days_schedule(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> dg.RunRequest | dg.SkipReason:
    missing = missing_settings(production_database.settings, lake.settings)
    if missing:
        return dg.SkipReason(missing)
    day = _now(context).replace(hour=0, minute=0, second=0, microsecond=0) - DAY
    return dg.RunRequest(partition_key=day_key(day))


@dg.schedule(
    job=close_hours_job,
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    name="fill_missing_partitions",
    default_status=_RUNNING,
    description=(
        "At twenty past every hour: closes and exports the hours of the last week that hold rows and were never "
        "closed, got late rows, or whose partitions are missing or failed. Neighbouring hours go into one run."
    ),
)
def fill_missing_partitions(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> list[dg.RunRequest] | dg.SkipReason:
    from kalshi_platform.deduplicator.hours import active_hours, hours_to_close

    missing = missing_settings(production_database.settings, lake.settings)
    if missing:
        return dg.SkipReason(missing)
    now = _now(context)
    try:
        with production_database.database() as database:
            active = [hour_key(hour) for hour in _looked_at(active_hours(database), now)]
            stale = [hour_key(hour) for hour in _looked_at(hours_to_close(database, now), now)]
    except KalshiPlatformError as error:
        return dg.SkipReason(f"production did not answer: {error}")
    done = materialized(context.instance, HOURLY_STAGE, active)
    busy = being_made(context.instance, HOURLY_STAGE, HOUR, hour_of, hour_key)
    wanted = lacking(HOURLY_STAGE, active, done, stale, busy)
    asked = requests(wanted, hour_of, HOUR, hour_key)
    return asked or dg.SkipReason(f"nothing is missing in the {len(active)} hours of the last week that hold rows")


@dg.schedule(
    job=export_days_job,
    cron_schedule="50 * * * *",
    execution_timezone="UTC",
    name="fill_missing_days",
    default_status=_RUNNING,
    description="At ten to every hour: exports the days of the last week whose daily data sets are missing or failed.",
)
def fill_missing_days(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> list[dg.RunRequest] | dg.SkipReason:
    from kalshi_platform.deduplicator.hours import active_hours, hours_to_close

    missing = missing_settings(production_database.settings, lake.settings)
    if missing:
        return dg.SkipReason(missing)
    now = _now(context)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        with production_database.database() as database:
            active = {day_key(hour) for hour in _looked_at(active_hours(database), now) if hour < today}
            unclosed = {day_key(hour) for hour in hours_to_close(database, now)}
    except KalshiPlatformError as error:
        return dg.SkipReason(f"production did not answer: {error}")
    # A day with an hour still to close (again) is exported after that.
    days = sorted(active - unclosed)
    done = materialized(context.instance, DAILY_STAGE, days)
    busy = being_made(context.instance, DAILY_STAGE, DAY, day_of, day_key)
    asked = requests(lacking(DAILY_STAGE, days, done, busy=busy), day_of, DAY, day_key)
    return asked or dg.SkipReason(f"nothing is missing in the {len(days)} closed days of the last week that hold rows")


def _looked_at(hours: Iterable[datetime], now: datetime) -> list[datetime]:
    """Ended hours of the last week that are partitions at all."""
    first = max(now - LOOK_BACK, _start_of(HOURS))
    return [hour for hour in hours if hour >= first and hour + HOUR <= now]


def _now(context: dg.ScheduleEvaluationContext) -> datetime:
    return context.scheduled_execution_time.astimezone(UTC)


HOURLY_SCHEDULES = [close_hours_schedule, fill_missing_partitions]
DAILY_SCHEDULES = [export_days_schedule, fill_missing_days]
