"""Jobs of assets: batches that schedules and people request.

A partitioned one is launched by "Materialize all" on the job's page, which asks for the partitions; a range of them is
one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from kalshi_platform.orchestration.jobs.descriptions import with_example
from kalshi_platform.orchestration.keys import (
    DAGSTER_RETENTION,
    GATHERER_CATALOG,
    HOUR_PARTS,
    LAKE_DAILY,
    LAKE_RAW,
    LAKE_TABLES,
    LIFECYCLE_RULES,
    PRODUCTION_CATALOG,
    PRODUCTION_HOURLY,
    RETENTION,
    TRADES_BACKFILL,
    frames,
)

_TAGS = {"kalshi/kind": "batch", "dagster/retry_strategy": "ALL_STEPS"}
"""After its process died a batch does all its steps again: each may be repeated."""
_EVALUATED_BY_SENSOR = "newest_partition_is_made"


def _select(*keys: dg.AssetKey) -> dg.AssetSelection:
    """Select assets with their checks, but for the one that a sensor evaluates: a run would only repeat it."""
    repeated = dg.AssetSelection.checks(*(dg.AssetCheckKey(key, _EVALUATED_BY_SENSOR) for key in keys))
    return dg.AssetSelection.assets(*keys) - repeated


sync_catalog_job = dg.define_asset_job(
    "sync_catalog",
    dg.AssetSelection.assets(*GATHERER_CATALOG),
    tags=_TAGS,
    description=with_example(
        "Exchange status, series, events and markets of one gatherer, over REST; a running gatherer does it by itself.",
        """
        ops:
          gatherer__markets:
            config:
              full: true   # list everything again, instead of what changed since the last sync
        """,
    ),
)
merge_catalog_job = dg.define_asset_job(
    "merge_catalog",
    dg.AssetSelection.assets(*PRODUCTION_CATALOG),
    tags=_TAGS,
    description="The gatherers' catalogs → production, newest knowledge wins.",
)
_FEWER_ROWS = """
    ops:
      lake__{asset}:
        config:
          allow_fewer_rows: true   # publish what is left, although production has lost rows since the close
"""
close_hours_job = dg.define_asset_job(
    "close_hours",
    _select(*PRODUCTION_HOURLY, *LAKE_RAW),
    tags=_TAGS,
    description=with_example(
        "Closes hours in production (merge again from all gatherers, coverage, proofs) and exports them as Parquet. "
        "Needs no config; choose an hour, or a range of hours, which is one run. Safe to repeat.",
        _FEWER_ROWS.format(asset="raw__orderbook_deltas"),
    ),
)
rebuild_hour_job = dg.define_asset_job(
    "rebuild_hour",
    _select(*PRODUCTION_HOURLY, *LAKE_RAW),
    config={
        "ops": {
            "closed_hours": {"config": {"fill": False}},
            **{"__".join(key.path): {"config": {"allow_fewer_rows": False}} for key in LAKE_RAW},
        }
    },
    tags=_TAGS,
    description=with_example(
        "Makes an hour anew: closes it again from what all gatherers hold now, and exports it again, whether or not "
        "the schedules hold that for needed. Of the days that are made from it those that changed follow with "
        "fill_missing_days, at ten to every hour. Launched as it is, it replaces no partition of the lake by one with "
        "fewer rows.",
        """
        ops:
          closed_hours:
            config:
              fill: true   # give rows what they lack and gatherers have, after rebuild_tables
          lake__raw__orderbook_deltas:
            config:
              allow_fewer_rows: true   # publish what is left, although production has lost rows since the close
        """,
    ),
)
export_hours_job = dg.define_asset_job(
    "export_hours",
    _select(*LAKE_RAW),
    tags=_TAGS,
    description=with_example(
        "Exports closed hours as Parquet again, without closing them again: after files were lost, say. Needs no "
        "config; choose an hour or a range of hours, which is one run.",
        _FEWER_ROWS.format(asset="raw__trades"),
    ),
)
close_buckets_job = dg.define_asset_job(
    "close_buckets",
    dg.AssetSelection.assets(HOUR_PARTS),
    tags={"kalshi/kind": "close_bucket"},
    description="Close hours in buckets of markets, a run each, on one machine or many; the last one closes the hour.",
)
"""Only where KALSHI_CLOSE_BUCKETS makes buckets. The pool `close_bucket` says how many work at once."""
export_days_job = dg.define_asset_job(
    "export_days",
    _select(*LAKE_DAILY),
    tags=_TAGS,
    description=with_example(
        "Exports days: everything in processed/ and aggregates/ of the lake. Their hours must be closed and exported. "
        "Needs no config; choose a day or a range of days, which is one run.",
        _FEWER_ROWS.format(asset="processed__trades"),
    ),
)
backfill_trades_job = dg.define_asset_job(
    "backfill_trades",
    dg.AssetSelection.assets(TRADES_BACKFILL),
    tags=_TAGS,
    description=(
        "Compares the trades of days with the exchange's own listing and inserts what is missing; needs no gatherer "
        "and no config. Choose a day or a range of days, which is one run; hours that got trades are closed and "
        "exported again by the schedules."
    ),
)
register_tables_job = dg.define_asset_job(
    "register_tables",
    dg.AssetSelection.assets(LAKE_TABLES),
    tags=_TAGS,
    description=with_example(
        "Makes the Iceberg tables name the lake's closed partitions of the last week.",
        """
        ops:
          lake__tables:
            config:
              all_days: true   # compare every day of the lake
        """,
    ),
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
    description=(
        "Drops old rows that the lake verifiably holds from the databases, and old runs from Dagster. What would go is "
        "said beforehand by retention_dry_run."
    ),
)
BATCH_JOBS = [
    sync_catalog_job,
    merge_catalog_job,
    close_hours_job,
    rebuild_hour_job,
    export_hours_job,
    export_days_job,
    backfill_trades_job,
    register_tables_job,
    lifecycle_job,
    retention_job,
]


def make_archive_frames_job(names: Sequence[str]) -> Any:
    """Make the job that archives frames of the gatherers of this host."""
    return dg.define_asset_job(
        "archive_frames",
        dg.AssetSelection.assets(*map(frames, names)),
        tags=_TAGS,
        description=(
            "Puts the frames of hours into the lake as they were received, from the journals on this host, and reads"
            " them back. Needs no config; choose an hour, or a range of hours, which is one run. Safe to repeat."
        ),
    )
