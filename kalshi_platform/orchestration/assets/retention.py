"""Retention as assets: old partitions of databases that the lake holds, and old runs of Dagster itself."""

from datetime import timedelta

import dagster as dg

from kalshi_platform.orchestration.asset_metadata import retention_metadata
from kalshi_platform.orchestration.columns import column_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import DAGSTER_RETENTION, LAKE_RAW, OWNERS, RETENTION
from kalshi_platform.orchestration.old_runs import delete_old_runs
from kalshi_platform.orchestration.resources import LakeResource, PlatformResource
from kalshi_platform.orchestration.services import DEDUP_JOB, GATHER_JOB

NOTHING_REFUSED = "nothing_refused"
_SERVICE_DAYS = 7
"""Days that runs of services stay: they are nine tenths of Dagster's events, and repeat what heartbeats say."""


@dg.asset(
    key=RETENTION,
    group_name="lake",
    deps=[dg.AssetDep(key) for key in LAKE_RAW],
    owners=OWNERS,
    kinds={"postgres"},
    retry_policy=RETRY,
    check_specs=[
        dg.AssetCheckSpec(
            NOTHING_REFUSED,
            asset=RETENTION,
            description="No partition that is old enough had to stay: each that does is named with the remedy.",
        )
    ],
    description=(
        "Drops old partitions of gatherers and of production, once the lake's partitions with their rows are closed, "
        "current and read back; then the ledgers that spoke of them. KALSHI_RETENTION_… say after how many days."
    ),
    metadata=column_metadata("production", "lake_verifications"),
)
def retention(platform: PlatformResource, lake: LakeResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Drop what is old and verifiably in the lake; record what went and what was refused."""
    from kalshi_platform.lake.retention.apply import apply_retention

    with as_failure():
        report = apply_retention(lake.retention(), platform.clock)
    metadata = retention_metadata(report)
    check = dg.AssetCheckResult(
        check_name=NOTHING_REFUSED,
        passed=not report.refused and not report.unreachable,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )
    return dg.MaterializeResult(metadata=metadata, check_results=[check])


@dg.asset(
    key=DAGSTER_RETENTION,
    group_name="lake",
    owners=OWNERS,
    kinds={"dagster"},
    retry_policy=RETRY,
    description=(
        "Deletes runs of Dagster that ended KALSHI_RETENTION_DAGSTER_DAYS ago, with their events and logs; the last "
        "run of each asset stays. Ticks are purged by dagster.yaml."
    ),
)
def dagster_retention(
    context: dg.AssetExecutionContext, platform: PlatformResource, lake: LakeResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Delete old runs from the storage of this instance."""
    with as_failure():
        settings = lake.retention()
    if not settings.enabled or not settings.dagster_days:
        return dg.MaterializeResult(metadata={"note": "switched off"})
    now = platform.clock.now()
    services = {job: now - timedelta(days=_SERVICE_DAYS) for job in (GATHER_JOB, DEDUP_JOB)}
    before = now - timedelta(days=settings.dagster_days)
    done = delete_old_runs(context.instance, before, platform.gatherer_names(), services=services)
    return dg.MaterializeResult(
        metadata={
            "runs_deleted": done.deleted,
            "runs_kept": done.kept,
            "checks_deleted": done.checks,
            "events_deleted": done.events,
        }
    )
