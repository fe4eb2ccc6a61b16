"""Schedules of the table catalog: what exports have left unregistered, every hour; the whole lake, every day."""

import dagster as dg

from kalshi_platform.orchestration.jobs.batch import register_tables_job
from kalshi_platform.orchestration.keys import LAKE_TABLES
from kalshi_platform.orchestration.resources import LakeResource
from kalshi_platform.orchestration.schedules.guards import evaluate_or_skip

_ALL_DAYS = {"ops": {"__".join(LAKE_TABLES.path): {"config": {"all_days": True}}}}


@dg.schedule(
    job=register_tables_job,
    cron_schedule="35 * * * *",
    execution_timezone="UTC",
    name="register_tables_schedule",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="At 35 past every hour: the Iceberg tables name what was exported in the last week, by whomever.",
)
def register_tables_schedule(lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Request the registration of the last week."""
    return evaluate_or_skip(dg.RunRequest, lake.settings, lake.iceberg)


@dg.schedule(
    job=register_tables_job,
    cron_schedule="55 1 * * *",
    execution_timezone="UTC",
    name="compare_all_tables",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 01:55 UTC: the Iceberg tables are compared with every closed partition of the lake.",
)
def compare_all_tables(lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
    """Request the registration of all days."""
    return evaluate_or_skip(lambda: dg.RunRequest(run_config=_ALL_DAYS), lake.settings, lake.iceberg)
