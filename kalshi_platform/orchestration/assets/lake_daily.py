"""Days made ready for analysis, and aggregates."""

import dagster as dg

from kalshi_platform.orchestration.assets.lake_raw import manifest_metadata
from kalshi_platform.orchestration.columns import lake_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import OWNERS, lake
from kalshi_platform.orchestration.partitions import DAYS, day_of
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase

_DESCRIPTIONS = {
    "processed/trades": "A day of trades for analysis: prices in dollars, sizes in contracts, exact decimals.",
    "aggregates/candles_1m": "A day of one-minute candles from trades; minutes without a trade have no row.",
}


def daily_asset(dataset: str) -> dg.AssetsDefinition:
    """The daily export of one derived data set. It reads production, whose hours of that day must be closed."""

    @dg.asset(
        key=lake(dataset),
        deps=[lake("raw/trades")],
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="lake",
        owners=OWNERS,
        kinds={"parquet"},
        pool="lake_export",
        retry_policy=RETRY,
        description=_DESCRIPTIONS.get(dataset, f"{dataset}, day by day."),
        metadata=lake_metadata(dataset),
    )
    def exported(
        context: dg.AssetExecutionContext, lake: LakeResource, production_database: ProductionDatabase
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from kalshi_platform.lake.export import export_daily

        with as_failure():
            settings = lake.settings()
            url = production_database.settings().production_url
            for partition in sorted(context.partition_keys):
                manifest = export_daily(settings, url, dataset, day_of(partition).date(), "closed")
                context.add_asset_metadata(manifest_metadata(manifest), partition_key=partition)
        return dg.MaterializeResult()

    return exported
