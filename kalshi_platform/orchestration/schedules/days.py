"""Exporting days on time, and again when their hours were closed again."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform.lake.layout import DAILY_DATASETS, lake_table, partition_starting
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
)

if TYPE_CHECKING:
    from kalshi_platform.lake.settings import LakeSettings

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
        "At ten to every hour: exports the days of the last week whose daily data sets are missing or failed, and any "
        "day of which an hour was closed after its export."
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
    from kalshi_platform.deduplicator.hours import active_hours, hours_closed_since, hours_to_close, last_closes

    now = now_of(context)
    first, today = start_of(DAYS), _midnight(now)
    with production_database.database() as database:
        recent = {hour for hour in active_hours(database) if hour >= now - LOOK_BACK}
        recent.update(hours_closed_since(database, now - LOOK_BACK))
        # A day with an hour still to close (again) is exported after that.
        unclosed = {day_key(hour) for hour in hours_to_close(database, now)}
        days = sorted({day_key(hour) for hour in recent if first <= hour < today} - unclosed)
        closes = last_closes(database, day_of(days[0]), today) if days else {}
    done = materialized(context.instance, DAILY_STAGE, days)
    stale = _stale(lake.settings(), [day for day in days if all(day in keys for keys in done.values())], closes)
    busy = being_made(context.instance, DAILY_STAGE, DAY, day_of, day_key)
    asked = requests(lacking(DAILY_STAGE, days, done, stale, busy), day_of, DAY, day_key)
    return asked or dg.SkipReason(f"nothing is missing in the {len(days)} closed days of the last week that hold rows")


def _stale(lake: "LakeSettings", days: list[str], closes: Mapping[datetime, datetime]) -> list[str]:
    """Days of which an hour was closed after the closes that an export has seen, or whose export is gone."""
    from kalshi_platform.lake.manifest import read_manifest

    stale = []
    for key in days:
        day = day_of(key)
        for name in DAILY_DATASETS:
            manifest = read_manifest(lake, partition_starting(lake_table(name), day.date()).path)
            if manifest is None or (day in closes and closes[day] > (manifest.closed_at or manifest.exported_at)):
                stale.append(key)
                break
    return stale


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


DAILY_SCHEDULES = [export_days_schedule, fill_missing_days]
