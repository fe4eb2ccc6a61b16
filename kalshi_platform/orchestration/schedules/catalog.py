"""Schedules of the catalogs: a gatherer's own when its last sync is old, and the merged one."""

from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg

from kalshi_platform.errors import ConfigurationError, KalshiPlatformError
from kalshi_platform.orchestration.jobs.batch import merge_catalog_job, sync_catalog_job
from kalshi_platform.orchestration.resources import PlatformResource, ProductionDatabase
from kalshi_platform.orchestration.schedules.guards import evaluate_or_skip, scheduled_time, with_run_keys
from kalshi_platform.orchestration.statuses import UNFINISHED
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

STALE_AFTER = timedelta(minutes=10)
_LONGEST_SYNC = timedelta(minutes=30)
"""For a sync that began and has not ended; after that its process is taken for dead."""
_SQL = load(Path(__file__).parents[1] / "queries.sql")


@dg.schedule(
    job=sync_catalog_job,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    name="sync_catalog_when_stale",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every ten minutes: syncs the catalog of each gatherer whose last sync of the markets is over ten minutes old. "
        "A running gatherer syncs by itself, so this acts only where none runs."
    ),
)
def sync_catalog_when_stale(
    context: dg.ScheduleEvaluationContext, platform: PlatformResource
) -> list[dg.RunRequest] | dg.SkipReason:
    """Request a sync of each gatherer whose catalog is not fresh."""
    return evaluate_or_skip(lambda: _request_syncs(context, platform), platform.public_reads)


@dg.schedule(
    job=merge_catalog_job,
    cron_schedule="10 * * * *",
    execution_timezone="UTC",
    name="merge_catalog_schedule",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="At ten past every hour: the gatherers' catalogs → production.",
)
def merge_catalog_schedule(production_database: ProductionDatabase) -> dg.RunRequest | dg.SkipReason:
    """Request a merge of the gatherers' catalogs."""
    return evaluate_or_skip(dg.RunRequest, production_database.settings)


def is_fresh(database: Database, now: datetime) -> bool:
    """Whether the markets were synced within ten minutes, or are being synced.

    The gatherer's host dated that, and may be ahead: what lies in the future is fresh no longer than what is past.
    """
    with database.transaction() as transaction:
        row = transaction.fetch_one(_SQL["read_last_sync"])
    ended_at, running_since = row or (None, None)
    if ended_at is not None and abs(now - ended_at) <= STALE_AFTER:
        return True
    return running_since is not None and abs(now - running_since) <= _LONGEST_SYNC


def _request_syncs(
    context: dg.ScheduleEvaluationContext, platform: PlatformResource
) -> list[dg.RunRequest] | dg.SkipReason:
    now = scheduled_time(context)
    reasons: list[str] = []
    requests: list[dg.RunRequest] = []
    for name in platform.gatherer_names():
        try:
            with platform.catalog(name) as database:
                fresh = is_fresh(database, now)
        except ConfigurationError as error:
            reasons.extend(error.problems)
            continue
        except KalshiPlatformError as error:
            reasons.append(f"{name}: {error}")
            continue
        if fresh:
            reasons.append(f"{name}: synced within the last {STALE_AFTER.total_seconds() / 60:.0f} minutes")
        elif _is_syncing(context.instance, name):
            reasons.append(f"{name}: a run syncs it already")
        else:
            requests.append(dg.RunRequest(partition_key=name))
    return with_run_keys(context, requests) or dg.SkipReason("\n".join(reasons))


def _is_syncing(instance: dg.DagsterInstance, name: str) -> bool:
    runs = dg.RunsFilter(job_name=sync_catalog_job.name, statuses=list(UNFINISHED), tags={"dagster/partition": name})
    return bool(instance.get_run_records(runs, limit=1))
