"""Schedules of hours: close and export them on time, and fill in what is missing."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import dagster as dg

from kalshi_platform import config
from kalshi_platform.market.times import HOUR, hour_of
from kalshi_platform.orchestration.jobs.batch import close_buckets_job, close_hours_job
from kalshi_platform.orchestration.keys import LAKE_RAW, PRODUCTION_HOURLY
from kalshi_platform.orchestration.partitions import (
    BUCKET_DIMENSION,
    hour_bucket_key,
    hour_key,
    parse_hour_key,
)
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase
from kalshi_platform.orchestration.schedules.guards import evaluate_or_skip, scheduled_time, with_run_keys
from kalshi_platform.orchestration.schedules.missing import (
    LOOK_BACK,
    PartitionedAssets,
    list_outdated,
    request_missing,
)

SILENT_LOOK_BACK = timedelta(days=1)
"""For hours without rows: whoever was away for longer does not want them all, with their trades, at the next start."""
HOURLY_ASSETS = PartitionedAssets(HOUR, parse_hour_key, hour_key, PRODUCTION_HOURLY, LAKE_RAW)


def make_hourly_schedules(
    first_hour: datetime, hour_buckets: dg.MultiPartitionsDefinition | None = None
) -> list[dg.ScheduleDefinition]:
    """Make the schedules; `first_hour`: the start of the first hourly partition.

    With `hour_buckets` an hour that has ended is closed by a run for each bucket of markets.
    """

    @dg.schedule(
        job=close_hours_job,
        cron_schedule="20 * * * *",
        execution_timezone="UTC",
        name="fill_missing_partitions",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "At twenty past every hour: closes and exports every hour that holds rows and was never closed, got late "
            "rows, or was closed without a gatherer that answers again; hours of the last day that nobody recorded and "
            "nobody closed; and hours of the last week whose partitions are missing, failed, or not those of "
            "production's present closes, closed by Dagster or from the shell. Neighbouring hours go into one run."
        ),
    )
    def fill_missing_partitions(
        context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        return evaluate_or_skip(
            lambda: _request_missing_hours(context, production_database, lake, first_hour),
            production_database.settings,
            lake.settings,
        )

    closing = close_hours_schedule if hour_buckets is None else _make_buckets_schedule(hour_buckets)
    return [closing, fill_missing_partitions]


def _make_buckets_schedule(hour_buckets: dg.MultiPartitionsDefinition) -> dg.ScheduleDefinition:
    buckets = hour_buckets.get_partitions_def_for_dimension(BUCKET_DIMENSION).get_partition_keys()

    @dg.schedule(
        job=close_buckets_job,
        cron_schedule="5 * * * *",
        execution_timezone="UTC",
        name="close_buckets_schedule",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "At five past every hour: close the hour that just ended in production, in as many runs as there are"
            " buckets of markets. closes_sensor exports it then; an hour whose buckets failed is closed at once by"
            " fill_missing_partitions."
        ),
    )
    def close_buckets_schedule(
        context: dg.ScheduleEvaluationContext, production_database: ProductionDatabase
    ) -> list[dg.RunRequest] | dg.SkipReason:
        hour = scheduled_time(context).replace(minute=0, second=0, microsecond=0) - HOUR
        if hour < config.partitions_start():
            return _skip_before_start(hour)
        requests = [dg.RunRequest(partition_key=hour_bucket_key(hour, bucket)) for bucket in buckets]
        return evaluate_or_skip(lambda: with_run_keys(context, requests), production_database.settings)

    return close_buckets_schedule


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
    """Request the close and the exports of the hour that has ended."""
    hour = scheduled_time(context).replace(minute=0, second=0, microsecond=0) - HOUR
    if hour < config.partitions_start():
        return _skip_before_start(hour)
    request = dg.RunRequest(partition_key=hour_key(hour))
    return evaluate_or_skip(lambda: request, production_database.settings, lake.settings)


def _skip_before_start(hour: datetime) -> dg.SkipReason:
    return dg.SkipReason(f"{hour:%Y-%m-%d %H:00} lies before KALSHI_PARTITIONS_START")


def _request_missing_hours(
    context: dg.ScheduleEvaluationContext, resource: ProductionDatabase, lake: LakeResource, first_hour: datetime
) -> list[dg.RunRequest] | dg.SkipReason:
    from kalshi_platform.deduplicator.close.hours import (
        find_active_hours,
        find_hours_closed_since,
        find_hours_to_close,
        find_silent_hours,
    )

    now = scheduled_time(context)

    def keys_of(hours: Iterable[datetime]) -> set[str]:
        """The keys of the hours that have ended and are partitions at all."""
        return {hour_key(hour) for hour in hours if hour >= first_hour and hour + HOUR <= now}

    with resource.database() as database:
        recent = {hour for hour in find_active_hours(database) if hour >= now - LOOK_BACK}
        # An old hour that was closed lately was closed again: its export may still be missing.
        recent.update(find_hours_closed_since(database, now - LOOK_BACK))
        stale = keys_of(find_hours_to_close(database, now))
        stale |= keys_of(find_silent_hours(database, hour_of(now - SILENT_LOOK_BACK), now))
    keys = sorted(keys_of(recent) | stale)
    outdated = list_outdated(lake.settings(), database.url, HOURLY_ASSETS, keys, now)
    requests = request_missing(context.instance, HOURLY_ASSETS, keys, outdated, stale)
    return with_run_keys(context, requests) or dg.SkipReason(
        f"nothing is missing in the {len(keys)} hours of the last week"
    )
