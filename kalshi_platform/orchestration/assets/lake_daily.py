"""Days made ready for analysis, and aggregates."""

import dagster as dg

from kalshi_platform.orchestration.assets.exporting import PARITY, ExportConfig, export_each, not_of_present_closes
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
    key = lake(dataset)

    @dg.asset(
        key=key,
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
        check_specs=[
            dg.AssetCheckSpec(
                PARITY, asset=key, description="The manifests of the days name the present closes of all their hours."
            )
        ],
    )
    def exported(
        context: dg.AssetExecutionContext,
        config: ExportConfig,
        lake: LakeResource,
        production_database: ProductionDatabase,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from kalshi_platform.lake.export import export_daily

        with as_failure():
            settings = lake.settings()
            url = production_database.settings().production_url
            manifests = export_each(
                context,
                key,
                lambda partition: export_daily(
                    settings, url, dataset, day_of(partition).date(), "closed", allow_fewer_rows=config.allow_fewer_rows
                ),
            )
            stale = not_of_present_closes(settings, url, manifests)
        return dg.MaterializeResult(
            check_results=[
                dg.AssetCheckResult(check_name=PARITY, passed=not stale, metadata={"stale": "; ".join(stale) or "none"})
            ]
        )

    return exported
