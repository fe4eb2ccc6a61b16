"""Exporting days on time, and again when their hours were closed again."""

from datetime import datetime

import dagster as dg

from kalshi_platform.orchestration.jobs.batch import export_days_job
from kalshi_platform.orchestration.keys import LAKE_DAILY
from kalshi_platform.orchestration.partitions import DAY, DAYS, day_key, day_of
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

DAILY_STAGE = Stage(DAYS, (), LAKE_DAILY)


@dg.schedule(
    job=export_days_job,
    cron_schedule="30 0 * * *",
    execution_timezone="UTC",
    name="export_days_schedule",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 00:30 UTC: the daily data sets of the day that ended.",
)
def export_days_schedule(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> dg.RunRequest | dg.SkipReason:
    day = _midnight(now_of(context)) - DAY
    return answer(
        lambda: dg.RunRequest(partition_key=day_key(day)), production_database.settings, lake.settings
    )  # fmt: skip


@dg.schedule(
    job=export_days_job,
    cron_schedule="50 * * * *",
    execution_timezone="UTC",
    name="fill_missing_days",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "At ten to every hour: exports the days of the last week whose daily data sets are missing, failed, or not "
        "those of production's present closes, whoever closed the hours and whatever Dagster remembers."
    ),
)
def fill_missing_days(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> list[dg.RunRequest] | dg.SkipReason:
    return answer(
        lambda: _missing_days(context, production_database, lake), production_database.settings, lake.settings
    )


def _missing_days(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> list[dg.RunRequest] | dg.SkipReason:
    from kalshi_platform.deduplicator.close.hours import active_hours, hours_closed_since, hours_to_close

    now = now_of(context)
    first, today = start_of(DAYS), _midnight(now)
    with production_database.database() as database:
        recent = {hour for hour in active_hours(database) if hour >= now - LOOK_BACK}
        recent.update(hours_closed_since(database, now - LOOK_BACK))
        # A day with an hour still to close (again) is exported after that.
        unclosed = {day_key(hour) for hour in hours_to_close(database, now)}
    days = sorted({day_key(hour) for hour in recent if first <= hour < today} - unclosed)
    done = materialized(context.instance, DAILY_STAGE, days)
    outdated = stale_in_lake(lake.settings(), database.url, DAILY_STAGE, map(day_of, days), now, day_key)
    busy = being_made(context.instance, DAILY_STAGE, DAY, day_of, day_key)
    asked = requests(lacking(DAILY_STAGE, days, without(done, outdated), busy=busy), day_of, DAY, day_key)
    return asked or dg.SkipReason(f"nothing is missing in the {len(days)} closed days of the last week that hold rows")


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


DAILY_SCHEDULES = [export_days_schedule, fill_missing_days]
