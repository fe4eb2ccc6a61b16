"""Catalogs: the gatherers' own when nobody synced them lately, and the merged one."""

from datetime import datetime, timedelta

import dagster as dg

from kalshi_platform.errors import ConfigurationError, KalshiPlatformError
from kalshi_platform.orchestration.jobs.batch import lifecycle_job, merge_catalog_job, sync_catalog_job
from kalshi_platform.orchestration.resources import LakeResource, PlatformResource, ProductionDatabase
from kalshi_platform.orchestration.schedules.answers import missing_settings, now_of
from kalshi_platform.orchestration.statuses import UNFINISHED
from kalshi_platform.storage.pool import Database

STALE_AFTER = timedelta(minutes=10)
_PATIENCE = timedelta(minutes=30)
"""For a sync that began and has not ended; after that its process is taken for dead."""


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
    now = now_of(context)
    words: list[str] = []
    asked: list[dg.RunRequest] = []
    missing = missing_settings(platform.exchange)
    if missing:
        return dg.SkipReason(missing)
    for name in platform.gatherer_names():
        try:
            with platform.catalog(name) as database:
                fresh = is_fresh(database, now)
        except ConfigurationError as error:
            words.extend(error.problems)
            continue
        except KalshiPlatformError as error:
            words.append(f"{name}: {error}")
            continue
        if fresh:
            words.append(f"{name}: synced within the last {STALE_AFTER.total_seconds() / 60:.0f} minutes")
        elif _is_syncing(context.instance, name):
            words.append(f"{name}: a run syncs it already")
        else:
            asked.append(dg.RunRequest(partition_key=name))
    return asked or dg.SkipReason("\n".join(words))


def is_fresh(database: Database, now: datetime) -> bool:
    """Whether the markets were synced within ten minutes, or are being synced.

    The gatherer's host dated that, and may be ahead: what lies in the future is fresh no longer than what is past.
    """
    with database.transaction() as transaction:
        row = transaction.fetch_one(
            # Also one that was not whole: who lists again at once gets the same.
            "SELECT max(finished_at), max(started_at) FILTER (WHERE finished_at IS NULL AND error IS NULL)"
            " FROM catalog_syncs WHERE what = 'markets' AND scope IN ('full', 'incremental')"
        )
    ended_at, running_since = row or (None, None)
    if ended_at is not None and abs(now - ended_at) <= STALE_AFTER:
        return True
    return running_since is not None and abs(now - running_since) <= _PATIENCE


def _is_syncing(instance: dg.DagsterInstance, name: str) -> bool:
    runs = dg.RunsFilter(job_name=sync_catalog_job.name, statuses=list(UNFINISHED), tags={"dagster/partition": name})
    return bool(instance.get_run_records(runs, limit=1))


@dg.schedule(
    job=merge_catalog_job,
    cron_schedule="10 * * * *",
    execution_timezone="UTC",
    name="merge_catalog_schedule",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="At ten past every hour: the gatherers' catalogs → production.",
)
def merge_catalog_schedule(production_database: ProductionDatabase) -> dg.RunRequest | dg.SkipReason:
    missing = missing_settings(production_database.settings)
    return dg.SkipReason(missing) if missing else dg.RunRequest()


@dg.schedule(
    job=lifecycle_job,
    cron_schedule="40 0 * * *",
    execution_timezone="UTC",
    name="apply_lifecycle_rules_schedule",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 00:40 UTC: puts the bucket's lifecycle rules in place again and reads them back.",
)
def apply_lifecycle_schedule(lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    missing = missing_settings(lake.settings)
    if missing:
        return dg.SkipReason(missing)
    if not lake.settings().root.startswith("s3://"):
        return dg.SkipReason("the lake is a folder: there is no lifecycle to apply")
    return dg.RunRequest()
