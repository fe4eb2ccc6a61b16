"""When each asset must have been made again: the freshness policy of every key, or why it has none.

Dagster's daemon compares a policy with the newest materialization of the asset, whichever partition that is of: a
backfill of old hours would hide a missing new one, and one gatherer another. So the deadlines of hours and days leave
only the time since their partition ended, and the checks `newest_partition_is_made` and `gatherers_are_fresh` judge
partition by partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import dagster as dg

from kalshi_platform.orchestration.keys import (
    CATALOG_TABLES,
    DAGSTER_RETENTION,
    EXCHANGE_STATUS,
    HOUR_PARTS,
    LAKE_DAILY,
    LAKE_RAW,
    LAKE_TABLES,
    LIFECYCLE_RULES,
    PRODUCTION_CATALOG,
    PRODUCTION_HOURLY,
    REST,
    REST_SNAPSHOTS,
    RETENTION,
    TRADES_BACKFILL,
    WEBSOCKET,
    gatherer,
    is_frames,
)

HOUR_DUE = timedelta(minutes=45)
"""How long after its end an hour is closed and exported: at :05, and at :20 where that failed."""
DAY_DUE = timedelta(hours=4)
"""The same of a day: its last hours are exported at 01:05, the day at 01:30, at every :50 where that failed."""

# The lower bound is the time since the partition ended, so that an earlier one does not count.
_HOURLY = dg.FreshnessPolicy.cron("45 * * * *", lower_bound_delta=HOUR_DUE)
_DAILY = dg.FreshnessPolicy.cron("0 4 * * *", lower_bound_delta=DAY_DUE)
_TABLES = dg.FreshnessPolicy.cron("55 * * * *", lower_bound_delta=timedelta(minutes=55))


def _within(warn: timedelta, fail: timedelta) -> dg.FreshnessPolicy:
    return dg.FreshnessPolicy.time_window(warn_window=warn, fail_window=fail)


# Gatherers report once a minute what they committed. A table without a new row is not materialized, so the windows are
# as long as the exchange may be silent there: its weekly maintenance takes two hours, and nothing fails for that.
_EVERY_MINUTE = _within(timedelta(minutes=30), timedelta(hours=4))
_RARELY = _within(timedelta(hours=12), timedelta(days=2))
# Markets are synced every 5 minutes, series and events every 10.
_CATALOG = _within(timedelta(minutes=30), timedelta(hours=2))

POLICIES: Mapping[dg.AssetKey, dg.FreshnessPolicy] = {
    WEBSOCKET: _HOURLY,
    REST: _HOURLY,
    **{gatherer(table): _CATALOG for table in CATALOG_TABLES},
    REST_SNAPSHOTS: _EVERY_MINUTE,
    gatherer("orderbook_deltas"): _EVERY_MINUTE,
    gatherer("tickers"): _EVERY_MINUTE,
    gatherer("orderbook_snapshots"): _EVERY_MINUTE,
    gatherer("trades"): _within(timedelta(hours=1), timedelta(hours=6)),
    gatherer("market_lifecycle"): _RARELY,
    **dict.fromkeys(PRODUCTION_HOURLY, _HOURLY),
    HOUR_PARTS: _HOURLY,
    **dict.fromkeys(PRODUCTION_CATALOG, _HOURLY),
    **dict.fromkeys(LAKE_RAW, _HOURLY),
    **dict.fromkeys(LAKE_DAILY, _DAILY),
    LAKE_TABLES: _TABLES,
}
ON_DEMAND: Mapping[dg.AssetKey, str] = {
    EXCHANGE_STATUS: "Read when a gatherer begins to record, and not again while it does.",
    RETENTION: "Made every day at 02:20 UTC, and never with KALSHI_RETENTION=no. A run that fails is an alarm.",
    DAGSTER_RETENTION: "Made in the run of lake/retention, and never with KALSHI_RETENTION=no.",
    TRADES_BACKFILL: "Made on demand, and for days whose trades could not be compared: there may be none for months.",
    LIFECYCLE_RULES: "Applied once a day where the lake is a bucket; a folder has none. The check reads them back.",
}
"""Assets without a policy, and why."""


def find_policy(key: dg.AssetKey) -> dg.FreshnessPolicy:
    """Return the policy of an asset that is not made on demand; of gatherers' frames it is one for all."""
    return _HOURLY if is_frames(key) else POLICIES[key]
