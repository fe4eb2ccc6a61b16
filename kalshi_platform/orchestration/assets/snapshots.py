"""Whole books over REST, on demand: the same poll that the gatherer does every minute."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform.market.times import US_PER_S
from kalshi_platform.orchestration.columns import column_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.jobs.reports import polled_metadata
from kalshi_platform.orchestration.keys import OWNERS, REST, REST_SNAPSHOTS, gatherer
from kalshi_platform.orchestration.partitions import GATHERERS
from kalshi_platform.orchestration.resources import PlatformResource
from kalshi_platform.storage.partitions import PartitionKeeper

if TYPE_CHECKING:
    from kalshi_platform.market.records import Record

_MINUTE_US = 60 * US_PER_S


@dg.asset(
    key=REST_SNAPSHOTS,
    deps=[REST, gatherer("markets")],
    partitions_def=GATHERERS,
    group_name="gatherer",
    owners=OWNERS,
    kinds={"rest", "postgres"},
    retry_policy=RETRY,
    description=(
        "One book per followed market, asked over REST. The gatherer polls them every minute; "
        "materializing this polls once more, now."
    ),
    metadata=column_metadata("timeseries", "orderbook_snapshots"),
)
def rest_snapshots(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    from kalshi_platform.gatherer.commit import commit_records
    from kalshi_platform.gatherer.snapshot_poller import poll_once

    name, clock = context.partition_key, platform.clock
    minute_us = clock.now_ns() // 1_000 // _MINUTE_US * _MINUTE_US
    with as_failure():
        tickers = _followed(platform, name)
        with platform.timeseries(name) as database:
            keeper = PartitionKeeper(database, platform.bounds(), clock)

            def put(records: "Sequence[Record]") -> None:
                commit_records(database, keeper, name, records)

            report = poll_once(platform.rest_client(), tickers, put, clock, minute_us)
    return dg.MaterializeResult(metadata=polled_metadata(report))


def _followed(platform: PlatformResource, name: str) -> list[str]:
    """The markets that the gatherer follows now, by its filter and its catalog."""
    from kalshi_platform.gatherer.catalog_follower import CatalogFollower
    from kalshi_platform.gatherer.registry import Registry

    admitted = platform.gatherer(name).market_filter
    registry = Registry(admitted)
    with platform.catalog(name) as database:
        CatalogFollower(
            database, registry, by_category=bool(admitted.categories), by_series=bool(admitted.series)
        ).refresh()
    return sorted(registry.wanted(platform.clock.now_ns() // 1_000))
