"""Keys of all assets, in one place."""

from __future__ import annotations

import dagster as dg

from kalshi_platform.lake.datasets import DAILY_DATASETS, DATASETS, RAW_TABLES
from kalshi_platform.market.tables import MERGED_TABLES

OWNERS = ["team:market-data"]

REST = dg.AssetKey(["kalshi", "rest"])
WEBSOCKET = dg.AssetKey(["kalshi", "websocket"])

_FRAMES = ("lake", "raw", "frames")
CATALOG_TABLES = ("series", "events", "markets")
PRODUCTION_TABLE_NAMES = (*MERGED_TABLES, "book_checkpoints", "coverage")
STREAM_TABLES = MERGED_TABLES
"""Tables that a gatherer fills from the WebSocket while it runs."""

REST_SNAPSHOTS = dg.AssetKey(["gatherer", "rest_snapshots"])
EXCHANGE_STATUS = dg.AssetKey(["gatherer", "exchange_status"])
HOUR_PARTS = dg.AssetKey(["production", "hour_parts"])
TRADES_BACKFILL = dg.AssetKey(["production", "trades_backfill"])
LAKE_TABLES = dg.AssetKey(["lake", "tables"])
LIFECYCLE_RULES = dg.AssetKey(["lake", "lifecycle_rules"])
RETENTION = dg.AssetKey(["lake", "retention"])
DAGSTER_RETENTION = dg.AssetKey(["lake", "dagster_retention"])


def frames(name: str) -> dg.AssetKey:
    """Return the key of a gatherer's archive of frames.

    Each gatherer has an asset of its own, because an asset key may be served by one code location only, and each
    gatherer may have a location.
    """
    return dg.AssetKey([*_FRAMES, name])


def is_frames(key: dg.AssetKey) -> bool:
    """Return whether the key is of an archive of frames."""
    return len(key.path) == len(_FRAMES) + 1 and tuple(key.path[:-1]) == _FRAMES


def gatherer(table: str) -> dg.AssetKey:
    """Return the key of a gatherer's table."""
    return dg.AssetKey(["gatherer", table])


def production(table: str) -> dg.AssetKey:
    """Return the key of a table of production."""
    return dg.AssetKey(["production", table])


def lake(key: str) -> dg.AssetKey:
    """`raw/trades` → lake/raw/trades."""
    return dg.AssetKey(["lake", *key.split("/")])


PRODUCTION_HOURLY = tuple(production(table) for table in PRODUCTION_TABLE_NAMES)
PRODUCTION_CATALOG = tuple(production(table) for table in CATALOG_TABLES)
LAKE_RAW = tuple(lake(f"raw/{table}") for table in RAW_TABLES)
LAKE_DAILY = tuple(lake(name) for name in DAILY_DATASETS)
GATHERER_CATALOG = (EXCHANGE_STATUS, *(gatherer(table) for table in CATALOG_TABLES))

FORMER_KEYS = {
    today: before
    for data in DATASETS.values()
    if data.formerly is not None
    for today, before in (
        (lake(data.key), lake(f"{data.layer}/{data.formerly}")),
        (production(data.source), production(data.formerly)),
    )
} | {production("coverage"): production("orderbook_deltas")}
"""Below which key older events of an asset stand: of a renamed one, the key before; of `production/coverage`, which the
step that closes an hour has always made and shows as an asset since, that of another asset of the step."""
