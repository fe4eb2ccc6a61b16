"""Jobs that end: batches that schedules and people request."""

from __future__ import annotations

import dagster as dg

from kalshi_platform.orchestration.keys import (
    DAGSTER_RETENTION,
    GATHERER_CATALOG,
    LAKE_DAILY,
    LAKE_RAW,
    LAKE_TABLES,
    LIFECYCLE_RULES,
    PRODUCTION_CATALOG,
    PRODUCTION_HOURLY,
    RETENTION,
    TRADES_BACKFILL,
)

_TAGS = {"kalshi/kind": "batch"}

sync_catalog_job = dg.define_asset_job(
    "sync_catalog",
    dg.AssetSelection.assets(*GATHERER_CATALOG),
    tags=_TAGS,
    description="Exchange status, series, events and markets of one gatherer, over REST.",
)
merge_catalog_job = dg.define_asset_job(
    "merge_catalog",
    dg.AssetSelection.assets(*PRODUCTION_CATALOG),
    tags=_TAGS,
    description="The gatherers' catalogs → production, newest knowledge wins.",
)
close_hours_job = dg.define_asset_job(
    "close_hours",
    dg.AssetSelection.assets(*PRODUCTION_HOURLY, *LAKE_RAW),
    tags=_TAGS,
    description="Close hours in production and export them as Parquet; a range of hours is one run.",
)
export_days_job = dg.define_asset_job(
    "export_days",
    dg.AssetSelection.assets(*LAKE_DAILY),
    tags=_TAGS,
    description="Daily data sets of the lake; a range of days is one run.",
)
backfill_trades_job = dg.define_asset_job(
    "backfill_trades",
    dg.AssetSelection.assets(TRADES_BACKFILL),
    tags=_TAGS,
    description="Days of trades from the exchange's own listing; a range of days is one run.",
)
register_tables_job = dg.define_asset_job(
    "register_tables",
    dg.AssetSelection.assets(LAKE_TABLES),
    tags=_TAGS,
    description="The lake's closed partitions as Iceberg tables.",
)
lifecycle_job = dg.define_asset_job(
    "apply_lifecycle_rules",
    dg.AssetSelection.assets(LIFECYCLE_RULES),
    tags=_TAGS,
    description="Put the bucket's lifecycle rules in place and read them back.",
)
retention_job = dg.define_asset_job(
    "retention",
    dg.AssetSelection.assets(RETENTION, DAGSTER_RETENTION),
    tags=_TAGS,
    description="Drop old rows that the lake verifiably holds from the databases, and old runs from Dagster.",
)
BATCH_JOBS = [
    sync_catalog_job,
    merge_catalog_job,
    close_hours_job,
    export_days_job,
    backfill_trades_job,
    register_tables_job,
    lifecycle_job,
    retention_job,
]
