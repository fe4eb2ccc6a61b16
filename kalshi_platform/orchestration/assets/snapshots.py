"""Whole books over REST, on demand: the same poll that the gatherer does every minute."""

import dagster as dg

from kalshi_platform.orchestration.asset_metadata import poll_metadata
from kalshi_platform.orchestration.columns import column_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import OWNERS, REST, REST_SNAPSHOTS, gatherer
from kalshi_platform.orchestration.resources import PlatformResource


def make_rest_snapshots(gatherers: dg.StaticPartitionsDefinition) -> dg.AssetsDefinition:
    """Make the asset of REST books, with a partition per gatherer."""

    @dg.asset(
        key=REST_SNAPSHOTS,
        deps=[REST, gatherer("markets")],
        partitions_def=gatherers,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="gatherer",
        owners=OWNERS,
        kinds={"rest", "postgres"},
        retry_policy=RETRY,
        description=(
            "One book per followed market, read over REST. The gatherer polls them every minute; "
            "materializing this polls once more, now."
        ),
        metadata=column_metadata("timeseries", "orderbook_snapshots"),
    )
    def rest_snapshots(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from kalshi_platform.gatherer.on_demand import poll_books

        with as_failure():
            rest, bounds = platform.rest_client(), platform.bounds()
            for name in sorted(context.partition_keys):
                with platform.timeseries(name) as timeseries, platform.catalog(name) as catalog:
                    report = poll_books(platform.gatherer(name), rest, platform.clock, bounds, timeseries, catalog)
                context.add_asset_metadata(poll_metadata(report), partition_key=name)
        return dg.MaterializeResult()

    return rest_snapshots
