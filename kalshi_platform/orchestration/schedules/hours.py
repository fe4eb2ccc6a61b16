"""Closing and exporting hours on time, and filling in what is missing."""

from collections.abc import Iterable
from datetime import datetime

import dagster as dg

from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration.jobs.batch import close_hours_job
from kalshi_platform.orchestration.keys import LAKE_RAW, PRODUCTION_HOURLY
from kalshi_platform.orchestration.partitions import HOURS, hour_key, hour_of
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase
from kalshi_platform.orchestration.schedules.answers import answer, now_of, start_of
from kalshi_platform.orchestration.schedules.missing import (
    LOOK_BACK,
    Stage,
    being_made,
    lacking,
    materialized,
    requests,
    stale_in_lake,
    without,
)

HOURLY_STAGE = Stage(HOURS, PRODUCTION_HOURLY, LAKE_RAW)


@dg.schedule(
    job=close_hours_job,
    cron_schedule="5 * * * *",
    execution_timezone="UTC",
    name="close_hours_schedule",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="At five past every hour: close the hour that just ended in production, and export it.",
)
def close_hours_schedule(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> dg.RunRequest | dg.SkipReason:
    hour = now_of(context).replace(minute=0, second=0, microsecond=0) - HOUR
    return answer(
        lambda: dg.RunRequest(partition_key=hour_key(hour)), production_database.settings, lake.settings
    )  # fmt: skip


@dg.schedule(
    job=close_hours_job,
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    name="fill_missing_partitions",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "At twenty past every hour: closes and exports every hour that holds rows and was never closed, got late rows, "
        "or was closed without a gatherer that answers again; and hours of the last week whose partitions are missing, "
        "failed, or not those of production's present closes, whoever closed them and whatever Dagster remembers. "
        "Neighbouring hours go into one run."
    ),
)
def fill_missing_partitions(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> list[dg.RunRequest] | dg.SkipReason:
    return answer(
        lambda: _missing_hours(context, production_database, lake), production_database.settings, lake.settings
    )  # fmt: skip


def _missing_hours(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> list[dg.RunRequest] | dg.SkipReason:
    from kalshi_platform.deduplicator.close.hours import active_hours, hours_closed_since, hours_to_close

    now = now_of(context)
    with production_database.database() as database:
        recent = {hour for hour in active_hours(database) if hour >= now - LOOK_BACK}
        # An old hour that was closed lately was closed again: its export may still be missing.
        recent.update(hours_closed_since(database, now - LOOK_BACK))
        stale = _partitions(hours_to_close(database, now), now)
    hours = sorted({*_partitions(recent, now), *stale})
    done = materialized(context.instance, HOURLY_STAGE, hours)
    outdated = stale_in_lake(lake.settings(), database.url, HOURLY_STAGE, map(hour_of, hours), now, hour_key)
    busy = being_made(context.instance, HOURLY_STAGE, HOUR, hour_of, hour_key)
    asked = requests(lacking(HOURLY_STAGE, hours, without(done, outdated), stale, busy), hour_of, HOUR, hour_key)
    return asked or dg.SkipReason(f"nothing is missing in the {len(hours)} hours of the last week that hold rows")


def _partitions(hours: Iterable[datetime], now: datetime) -> list[str]:
    """The keys of the hours that have ended and are partitions at all."""
    first = start_of(HOURS)
    return [hour_key(hour) for hour in hours if hour >= first and hour + HOUR <= now]


HOURLY_SCHEDULES = [close_hours_schedule, fill_missing_partitions]
