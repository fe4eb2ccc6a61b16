"""Builds the definitions of a code location: everything, one gatherer, or the platform without gatherers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dagster as dg

from kalshi_platform import config
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lake.datasets import DAILY_DATASETS, RAW_TABLES
from kalshi_platform.monitoring.logs import make_our_records_plain
from kalshi_platform.orchestration.asset_pages import complete_pages
from kalshi_platform.orchestration.assets.catalog import make_catalog_assets
from kalshi_platform.orchestration.assets.external import SOURCES, make_stream_assets
from kalshi_platform.orchestration.assets.hour_parts import make_hour_parts
from kalshi_platform.orchestration.assets.lake_daily import make_daily_asset
from kalshi_platform.orchestration.assets.lake_frames import make_frames_asset
from kalshi_platform.orchestration.assets.lake_raw import make_raw_asset
from kalshi_platform.orchestration.assets.lake_tables import lake_tables
from kalshi_platform.orchestration.assets.lifecycle_rules import lifecycle_reads_back, lifecycle_rules
from kalshi_platform.orchestration.assets.production import make_closed_hours
from kalshi_platform.orchestration.assets.production_catalog import make_merged_catalog
from kalshi_platform.orchestration.assets.retention import dagster_retention, retention
from kalshi_platform.orchestration.assets.snapshots import make_rest_snapshots
from kalshi_platform.orchestration.assets.trades_backfill import make_trades_backfill
from kalshi_platform.orchestration.checks.freshness import gatherers_are_fresh
from kalshi_platform.orchestration.checks.newest_partitions import make_newest_partitions_check
from kalshi_platform.orchestration.checks.trades import no_duplicate_trade_ids_last_day, trade_parity_last_day
from kalshi_platform.orchestration.failures import collect_problems
from kalshi_platform.orchestration.jobs.batch import BATCH_JOBS, close_buckets_job, make_archive_frames_job
from kalshi_platform.orchestration.jobs.dedup_live import make_dedup_live_job
from kalshi_platform.orchestration.jobs.gather import make_gather_job
from kalshi_platform.orchestration.jobs.rebuild_tables import make_rebuild_job
from kalshi_platform.orchestration.jobs.retention_dry_run import retention_dry_run_job
from kalshi_platform.orchestration.jobs.rotate_gatherers import make_rotate_gatherers_job
from kalshi_platform.orchestration.jobs.switch_services import make_switch_services_job
from kalshi_platform.orchestration.partitions import Partitions, first_start, make_partitions, make_running_hours
from kalshi_platform.orchestration.resources import RESOURCES
from kalshi_platform.orchestration.schedules.catalog import merge_catalog_schedule, sync_catalog_when_stale
from kalshi_platform.orchestration.schedules.closes import make_closes_sensor
from kalshi_platform.orchestration.schedules.days import make_daily_schedules
from kalshi_platform.orchestration.schedules.frames import make_frames_schedule
from kalshi_platform.orchestration.schedules.hours import make_hourly_schedules
from kalshi_platform.orchestration.schedules.newest_partitions import make_newest_partitions_sensor
from kalshi_platform.orchestration.schedules.tables import compare_all_tables, register_tables_schedule
from kalshi_platform.orchestration.sensors.alerts import make_alert_sensors
from kalshi_platform.orchestration.sensors.dead_runs import make_dead_runs_sensor
from kalshi_platform.orchestration.sensors.services import make_deduplicator_sensor, make_gatherer_sensor
from kalshi_platform.orchestration.services import DEDUPLICATOR, gatherer_service_name


@dataclass(frozen=True)
class CodeLocation:
    """The settings of a code location: its role, the gatherers' names, and the first hourly partition.

    `close_buckets`: into how many buckets of markets a run each closes an hour. `archive_frames`: whether the gatherers
    that it hosts put their frames into the lake.
    """

    role: config.Role
    gatherer_names: tuple[str, ...]
    partitions_start: datetime
    close_buckets: int = 1
    archive_frames: bool = True


def load_code_location() -> CodeLocation:
    """Read KALSHI_ROLE, KALSHI_GATHERERS, KALSHI_PARTITIONS_START, KALSHI_CLOSE_BUCKETS and KALSHI_ARCHIVE_FRAMES.

    Raises one ConfigurationError for all of them.
    """
    problems = collect_problems(config.role, config.partitions_start, config.close_buckets, config.archives_frames)
    if problems:
        raise ConfigurationError(problems)
    return CodeLocation(
        config.role(),
        config.gatherer_names(),
        config.partitions_start(),
        config.close_buckets(),
        config.archives_frames(),
    )


def build(location: CodeLocation) -> dg.Definitions:
    """Build the definitions of a location.

    A gatherer's location has its job, its sensor and the archive of its frames, so that its runs execute on its host,
    where the journal is. All other assets are the platform's, because an asset key may be served by one location only,
    and so is the rotation, which must know who else records.
    """
    make_our_records_plain()  # this process's log handlers are Dagster's, or Python's
    parts = _Parts()
    names = [name for name in location.gatherer_names if location.role.serves_gatherer(name)]
    if names:
        parts.jobs.append(make_gather_job(names))
        parts.sensors.append(make_gatherer_sensor(names))
        hours = make_running_hours(location.partitions_start)
        parts.jobs.append(make_rebuild_job(hours))
        if location.archive_frames:
            _add_frames(parts, names, hours)
    if location.role.serves_platform():
        partitions = make_partitions(location.gatherer_names, location.partitions_start, location.close_buckets)
        _add_platform(parts, partitions)
    parts.jobs.append(make_switch_services_job(_list_switchable(location, names)))
    return dg.Definitions(
        assets=parts.assets,
        asset_checks=parts.asset_checks,
        jobs=parts.jobs,
        schedules=parts.schedules,
        sensors=parts.sensors,
        resources=RESOURCES,
        executor=dg.in_process_executor,
    )


def _list_switchable(location: CodeLocation, hosted: Sequence[str]) -> list[str]:
    """Name the services whose databases a location knows: its own gatherers', and all that the merge reads."""
    if not location.role.serves_platform():
        return [gatherer_service_name(name) for name in hosted]
    return [*map(gatherer_service_name, location.gatherer_names), DEDUPLICATOR]


@dataclass
class _Parts:
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = field(default_factory=list)
    asset_checks: list[dg.AssetChecksDefinition] = field(default_factory=list)
    jobs: list[Any] = field(default_factory=list)
    schedules: list[dg.ScheduleDefinition] = field(default_factory=list)
    sensors: list[dg.SensorDefinition] = field(default_factory=list)


def _add_frames(parts: _Parts, names: Sequence[str], hours: dg.HourlyPartitionsDefinition) -> None:
    parts.assets += complete_pages([make_frames_asset(name, hours) for name in names])
    job = make_archive_frames_job(names)
    parts.jobs.append(job)
    parts.schedules.append(make_frames_schedule(names, first_start(hours), job))


def _add_platform(parts: _Parts, partitions: Partitions) -> None:
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [
        *SOURCES,
        *make_catalog_assets(partitions.gatherers),
        make_rest_snapshots(partitions.gatherers),
        *make_stream_assets(partitions.gatherers),
        make_merged_catalog(),
        make_closed_hours(partitions.hours),
        make_trades_backfill(partitions.days),
        *(make_raw_asset(table, partitions.hours) for table in RAW_TABLES),
        *(make_daily_asset(name, partitions.days) for name in DAILY_DATASETS),
        lake_tables,
        lifecycle_rules,
        retention,
        dagster_retention,
    ]
    if partitions.hour_buckets is not None:
        assets.append(make_hour_parts(partitions.hour_buckets))
        parts.jobs.append(close_buckets_job)
    parts.assets += complete_pages(assets)
    parts.asset_checks += [
        gatherers_are_fresh,
        lifecycle_reads_back,
        make_newest_partitions_check(partitions.first_hour),
        no_duplicate_trade_ids_last_day,
        trade_parity_last_day,
    ]
    rotation = make_rotate_gatherers_job(partitions.gatherers.get_partition_keys())
    parts.jobs += [make_dedup_live_job(), rotation, retention_dry_run_job, *BATCH_JOBS]
    parts.schedules += [
        sync_catalog_when_stale,
        merge_catalog_schedule,
        *make_hourly_schedules(partitions.first_hour, partitions.hour_buckets),
        *make_daily_schedules(partitions.first_day),
        register_tables_schedule,
        compare_all_tables,
    ]
    parts.sensors += [
        make_deduplicator_sensor(),
        make_closes_sensor(partitions.first_hour),
        make_dead_runs_sensor(),
        *make_alert_sensors(partitions.gatherers.get_partition_keys()),
        make_newest_partitions_sensor(partitions.first_hour),
    ]
