"""Whole books over REST, on demand: the same poll that the gatherer does every minute."""

import dagster as dg

from kalshi_platform.orchestration.columns import column_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.jobs.reports import polled_metadata
from kalshi_platform.orchestration.keys import OWNERS, REST, REST_SNAPSHOTS, gatherer
from kalshi_platform.orchestration.partitions import GATHERERS
from kalshi_platform.orchestration.resources import PlatformResource


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
    from kalshi_platform.gatherer.on_demand import poll_books

    name = context.partition_key
    with as_failure(), platform.timeseries(name) as timeseries, platform.catalog(name) as catalog:
        report = poll_books(
            platform.gatherer(name), platform.rest_client(), platform.clock, platform.bounds(), timeseries, catalog
        )
    return dg.MaterializeResult(metadata=polled_metadata(report))
