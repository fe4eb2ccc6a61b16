"""Check that the newest hours and days that are due are there: closed in production, published in the lake.

A freshness policy is met by a backfill of any partition. These checks look at the partitions themselves, in production
and in the lake, so that what was closed or exported from the shell counts too. Hours without any row are not due.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.market.times import HOUR, hour_of
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.freshness_policies import DAY_DUE, HOUR_DUE
from kalshi_platform.orchestration.keys import LAKE_DAILY, LAKE_RAW, PRODUCTION_HOURLY
from kalshi_platform.orchestration.partitions import DAY, day_key, hour_key
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

if TYPE_CHECKING:
    from kalshi_platform.lake.settings import LakeSettings

CHECK_NAME = "newest_partition_is_made"
CHECKED = (*PRODUCTION_HOURLY, *LAKE_RAW, *LAKE_DAILY)
_SQL = load(Path(__file__).parents[1] / "queries.sql")


@dataclass(frozen=True)
class Newest:
    """The newest hour and the newest day (their starts) with rows that are due, and the newest closed hour."""

    hour: datetime | None
    day: datetime | None
    closed: datetime | None


@dataclass(frozen=True)
class PartitionStatus:
    """Whether an asset has its newest partition; `partition` is its key, None where none is due."""

    key: dg.AssetKey
    partition: str | None
    is_made: bool

    @property
    def metadata(self) -> dict[str, str]:
        """What the check's page says."""
        return {"newest_due": self.partition or "none", "made": "yes" if self.is_made else "no"}


def last_due(now: datetime) -> tuple[datetime, datetime]:
    """Return the ends of the newest hour and of the newest day that are due at a moment, UTC."""
    midnight = (now - DAY_DUE).replace(hour=0, minute=0, second=0, microsecond=0)
    return hour_of(now - HOUR_DUE), midnight


def read_newest(database: Database, first_hour: datetime, now: datetime) -> Newest:
    """Read which hour and day are due, of those from `first_hour` on."""
    hours_end, days_end = last_due(now)
    with database.transaction() as transaction:
        row = transaction.fetch_one(
            _SQL["read_newest_hours"], {"low": first_hour, "high": hours_end, "day_end": days_end}
        )
    hour, of_day, closed = row or (None, None, None)
    return Newest(hour, None if of_day is None else of_day.replace(hour=0), closed)


def judge_newest(lake: "LakeSettings", newest: Newest, keys: Sequence[dg.AssetKey]) -> Iterator[PartitionStatus]:
    """Judge the assets. A newer partition than the one that is due counts as well."""
    from kalshi_platform.lake.layout import partition_at
    from kalshi_platform.lake.manifest import find_manifest
    from kalshi_platform.lake.store import open_store

    store = open_store(lake)

    def is_published(dataset: str, moments: Sequence[datetime | None]) -> bool:
        found = (find_manifest(store, partition_at(DATASETS[dataset], each)) for each in moments if each is not None)
        return any(each is not None and each[1].state == "closed" for each in found)

    for key in keys:
        dataset = "/".join(key.path[1:])
        due = newest.day if key in LAKE_DAILY else newest.hour
        if due is None:
            yield PartitionStatus(key, None, is_made=True)
        elif key in LAKE_DAILY:
            yield PartitionStatus(key, day_key(due), is_published(dataset, [due, due + DAY]))
        elif key in LAKE_RAW:
            yield PartitionStatus(key, hour_key(due), is_published(dataset, [due, due + HOUR, newest.closed]))
        else:
            yield PartitionStatus(key, hour_key(due), newest.closed is not None and newest.closed >= due)


def make_newest_partitions_check(first_hour: datetime) -> dg.AssetChecksDefinition:
    """Make the checks, to be run by hand; the sensor evaluates them by itself. `first_hour`: of the first partition."""

    @dg.multi_asset_check(
        name="newest_partitions",
        specs=[
            dg.AssetCheckSpec(
                CHECK_NAME,
                asset=key,
                description=(
                    "The newest day that had rows is published four hours after its end."
                    if key in LAKE_DAILY
                    else "The newest hour that had rows is closed and published 45 minutes after its end."
                ),
            )
            for key in CHECKED
        ],
        can_subset=True,
    )
    def newest_partitions(
        context: dg.AssetCheckExecutionContext, production_database: ProductionDatabase, lake: LakeResource
    ) -> Iterator[dg.AssetCheckResult]:
        selected = {each.asset_key for each in context.selected_asset_check_keys}
        with as_failure(), production_database.database() as database:
            newest = read_newest(database, first_hour, production_database.clock.now())
            judged = list(judge_newest(lake.settings(), newest, [key for key in CHECKED if key in selected]))
        for each in judged:
            yield dg.AssetCheckResult(
                asset_key=each.key, check_name=CHECK_NAME, passed=each.is_made, metadata=each.metadata
            )

    return newest_partitions
