"""Schedules of days: export them on time and again after a later close, compare their trades, lifecycle, retention."""

from datetime import datetime, timedelta

import dagster as dg

from kalshi_platform import config
from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration.jobs.batch import backfill_trades_job, export_days_job, lifecycle_job, retention_job
from kalshi_platform.orchestration.keys import LAKE_DAILY, TRADES_BACKFILL
from kalshi_platform.orchestration.partitions import DAY, day_key, join_ranges, parse_day_key, request_range
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase
from kalshi_platform.orchestration.schedules.guards import evaluate_or_skip, scheduled_time, with_run_keys
from kalshi_platform.orchestration.schedules.missing import (
    LONGEST_RANGE,
    LOOK_BACK,
    PartitionedAssets,
    list_outdated,
    list_waiting,
    request_missing,
)
from kalshi_platform.orchestration.trade_summary import list_days_to_compare

DAILY_ASSETS = PartitionedAssets(DAY, parse_day_key, day_key, (), LAKE_DAILY)


def make_daily_schedules(first_day: datetime) -> list[dg.ScheduleDefinition]:
    """Make the schedules; `first_day`: the start of the first daily partition."""

    @dg.schedule(
        job=export_days_job,
        cron_schedule="50 * * * *",
        execution_timezone="UTC",
        name="fill_missing_days",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "At ten to every hour: exports the days of the last week whose daily data sets are missing, failed, or not "
            "those of production's present closes, made by Dagster or from the shell. What is made from raw hours of "
            "the lake waits until these are exported."
        ),
    )
    def fill_missing_days(
        context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        return evaluate_or_skip(
            lambda: _request_missing_days(context, production_database, lake, first_day),
            production_database.settings,
            lake.settings,
        )

    @dg.schedule(
        job=backfill_trades_job,
        cron_schedule="15 1 * * *",
        execution_timezone="UTC",
        name="compare_trades_again",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "Every day at 01:15 UTC: days of the last week with a closed hour whose trades could not be compared with "
            "the exchange's listing, or not wholly. Neighbouring days go into one run."
        ),
    )
    def compare_trades_again(
        context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase
    ) -> list[dg.RunRequest] | dg.SkipReason:
        return evaluate_or_skip(
            lambda: _request_comparisons(context, production_database, first_day), production_database.settings
        )

    return [export_days_schedule, fill_missing_days, compare_trades_again, apply_lifecycle_schedule, retention_schedule]


@dg.schedule(
    job=export_days_job,
    # Some data sets of a day read the first hour of the next, which is closed and exported at 01:05.
    cron_schedule="30 1 * * *",
    execution_timezone="UTC",
    name="export_days_schedule",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 01:30 UTC: the daily data sets of the day that ended.",
)
def export_days_schedule(
    context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
) -> dg.RunRequest | dg.SkipReason:
    """Request the exports of the day that has ended."""
    day = _midnight(scheduled_time(context)) - DAY
    if day < _midnight(config.partitions_start()):
        return dg.SkipReason(f"{day:%Y-%m-%d} lies before KALSHI_PARTITIONS_START")
    request = dg.RunRequest(partition_key=day_key(day))
    return evaluate_or_skip(lambda: request, production_database.settings, lake.settings)


@dg.schedule(
    job=lifecycle_job,
    cron_schedule="40 0 * * *",
    execution_timezone="UTC",
    name="apply_lifecycle_rules_schedule",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 00:40 UTC: puts the bucket's lifecycle rules in place again and reads them back.",
)
def apply_lifecycle_schedule(lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Request that the lifecycle rules be applied, where the lake is a bucket."""

    def request() -> dg.RunRequest | dg.SkipReason:
        if lake.settings().root.startswith("s3://"):
            return dg.RunRequest()
        return dg.SkipReason("the lake is a folder: there is no lifecycle to apply")

    return evaluate_or_skip(request, lake.settings)


@dg.schedule(
    job=retention_job,
    cron_schedule="20 2 * * *",
    execution_timezone="UTC",
    name="retention_schedule",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every day at 02:20 UTC, when the day before is closed and exported: drops what is old and verifiably in the "
        "lake, and deletes old runs of Dagster."
    ),
)
def retention_schedule(lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Request retention, unless it is switched off."""

    def request() -> dg.RunRequest | dg.SkipReason:
        if lake.retention().enabled:
            return dg.RunRequest()
        return dg.SkipReason("KALSHI_RETENTION says that nothing is to go")

    return evaluate_or_skip(request, lake.retention)


def _request_missing_days(
    context: dg.ScheduleEvaluationContext, resource: ProductionDatabase, lake: LakeResource, first_day: datetime
) -> list[dg.RunRequest] | dg.SkipReason:
    from kalshi_platform.deduplicator.close.hours import find_active_hours, find_hours_closed_since, find_hours_to_close

    now = scheduled_time(context)
    with resource.database() as database:
        recent = {hour for hour in find_active_hours(database) if hour >= now - LOOK_BACK}
        recent.update(find_hours_closed_since(database, now - LOOK_BACK))
        # A day with an hour still to close (again) is exported after that; some read an hour beside the day too.
        unclosed = {
            day_key(hour + offset)
            for hour in find_hours_to_close(database, now)
            for offset in (-HOUR, timedelta(0), HOUR)
        }
    days = sorted({day_key(hour) for hour in recent if first_day <= hour < _midnight(now)} - unclosed)
    outdated = list_outdated(lake.settings(), database.url, DAILY_ASSETS, days, now)
    requests = request_missing(
        context.instance,
        DAILY_ASSETS,
        days,
        outdated,
        find_waiting=lambda missing_keys: list_waiting(lake.settings(), database.url, DAILY_ASSETS, missing_keys, now),
    )
    return with_run_keys(context, requests) or dg.SkipReason(
        f"nothing is missing in the {len(days)} closed days of the last week that hold rows"
    )


def _request_comparisons(
    context: dg.ScheduleEvaluationContext, resource: ProductionDatabase, first_day: datetime
) -> list[dg.RunRequest] | dg.SkipReason:
    if not resource.settings().check_trades:
        return dg.SkipReason("KALSHI_CHECK_TRADES says that trades are not to be compared")
    today = _midnight(scheduled_time(context))
    with resource.database() as database:
        days = list_days_to_compare(database, max(first_day, today - LOOK_BACK), today)
    requests = [
        request_range([TRADES_BACKFILL], day_key(first), day_key(last))
        for first, last in join_ranges(days, DAY, LONGEST_RANGE)
    ]
    return with_run_keys(context, requests) or dg.SkipReason(
        f"the trades of all closed hours of the last {LOOK_BACK.days} days were compared"
    )


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
