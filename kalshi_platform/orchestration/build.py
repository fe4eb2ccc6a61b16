"""Which definitions a code location serves: everything, one gatherer, or the platform without gatherers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from kalshi_platform import config
from kalshi_platform.lake.layout import DAILY_DATASETS, RAW_TABLES
from kalshi_platform.monitoring.logs import make_our_records_plain
from kalshi_platform.orchestration.assets.catalog import CATALOG
from kalshi_platform.orchestration.assets.lake_daily import daily_asset
from kalshi_platform.orchestration.assets.lake_raw import raw_asset
from kalshi_platform.orchestration.assets.lifecycle_rules import lifecycle_rules
from kalshi_platform.orchestration.assets.production import close_hours
from kalshi_platform.orchestration.assets.production_catalog import merge_catalog_tables
from kalshi_platform.orchestration.assets.snapshots import rest_snapshots
from kalshi_platform.orchestration.assets.sources import SOURCES
from kalshi_platform.orchestration.assets.streams import STREAMS
from kalshi_platform.orchestration.assets.trades_backfill import trades_backfill
from kalshi_platform.orchestration.checks.freshness import gatherers_are_fresh
from kalshi_platform.orchestration.checks.lifecycle import lifecycle_reads_back
from kalshi_platform.orchestration.checks.trade_parity import trade_parity_last_day
from kalshi_platform.orchestration.checks.trades import no_duplicate_trade_ids_last_day
from kalshi_platform.orchestration.jobs.batch import (
    backfill_trades_job,
    close_hours_job,
    export_days_job,
    lifecycle_job,
    merge_catalog_job,
    sync_catalog_job,
)
from kalshi_platform.orchestration.jobs.dedup_live import dedup_live_job
from kalshi_platform.orchestration.jobs.gather import gather_job
from kalshi_platform.orchestration.resources import RESOURCES
from kalshi_platform.orchestration.schedules.catalog import (
    apply_lifecycle_schedule,
    merge_catalog_schedule,
    sync_catalog_when_stale,
)
from kalshi_platform.orchestration.schedules.days import DAILY_SCHEDULES
from kalshi_platform.orchestration.schedules.hours import HOURLY_SCHEDULES
from kalshi_platform.orchestration.schedules.trades import compare_trades_again
from kalshi_platform.orchestration.sensors.services import deduplicator_sensor, gatherer_sensor


def build(role: config.Role) -> dg.Definitions:
    """The definitions of a role.

    A gatherer's location has its job and its sensor, so that its runs execute on its host; assets are the platform's,
    because an asset key may be served by one location only.
    """
    make_our_records_plain()  # this process's log handlers are Dagster's, or Python's
    parts = _Parts()
    names = [name for name in config.gatherer_names() if role.serves_gatherer(name)]
    if names:
        parts.jobs.append(gather_job(names))
        parts.sensors.append(gatherer_sensor(names))
    if role.serves_platform():
        _add_platform(parts)
    return dg.Definitions(
        assets=parts.assets,
        asset_checks=parts.asset_checks,
        jobs=parts.jobs,
        schedules=parts.schedules,
        sensors=parts.sensors,
        resources=RESOURCES,
        executor=dg.in_process_executor,
    )


@dataclass
class _Parts:
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = field(default_factory=list)
    asset_checks: list[dg.AssetChecksDefinition] = field(default_factory=list)
    jobs: list[Any] = field(default_factory=list)
    schedules: list[dg.ScheduleDefinition] = field(default_factory=list)
    sensors: list[dg.SensorDefinition] = field(default_factory=list)


def _add_platform(parts: _Parts) -> None:
    parts.assets += [
        *SOURCES,
        *CATALOG,
        rest_snapshots,
        *STREAMS,
        merge_catalog_tables,
        close_hours,
        trades_backfill,
        *(raw_asset(table) for table in RAW_TABLES),
        *(daily_asset(name) for name in DAILY_DATASETS),
        lifecycle_rules,
    ]
    parts.asset_checks += [gatherers_are_fresh, lifecycle_reads_back, no_duplicate_trade_ids_last_day]
    parts.asset_checks.append(trade_parity_last_day)
    parts.jobs += [
        dedup_live_job(),
        sync_catalog_job,
        merge_catalog_job,
        close_hours_job,
        export_days_job,
        backfill_trades_job,
        lifecycle_job,
    ]
    parts.schedules += [
        sync_catalog_when_stale,
        merge_catalog_schedule,
        *HOURLY_SCHEDULES,
        *DAILY_SCHEDULES,
        compare_trades_again,
        apply_lifecycle_schedule,
    ]
    parts.sensors.append(deduplicator_sensor())
