"""Days made ready for analysis, and aggregates, as Parquet."""

from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.orchestration.asset_plots import MARKET_STATS, plot_busy_markets
from kalshi_platform.orchestration.assets.exporting import PARITY, ExportConfig, check_parity, export_each
from kalshi_platform.orchestration.columns import lake_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import CATALOG_TABLES, OWNERS, lake, production
from kalshi_platform.orchestration.partitions import parse_day_key
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase

if TYPE_CHECKING:
    from kalshi_platform.lake.manifest import Manifest


def make_daily_asset(dataset: str, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Make the daily export of one derived data set, from production or from the lake's raw hours of that day.

    Production must have closed these hours.
    """
    key, data = lake(dataset), DATASETS[dataset]

    @dg.asset(
        key=key,
        deps=_upstream(data),
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="lake",
        owners=OWNERS,
        kinds={"parquet"},
        pool="lake_export",
        retry_policy=RETRY,
        description=f"{data.description} One folder per day.",
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
        from kalshi_platform.lake.iceberg.replaced import registering_replaced
        from kalshi_platform.lake.layout import partition_at

        def export(partition: str) -> "Manifest":
            day = parse_day_key(partition)
            with registering_replaced(settings, lake.iceberg, partition_at(DATASETS[dataset], day)):
                return export_daily(
                    settings, url, dataset, day.date(), "closed", allow_fewer_rows=config.allow_fewer_rows
                )

        with as_failure():
            settings, url = lake.settings(), production_database.settings().production_url
            manifests = export_each(context, key, export)
            check = check_parity(settings, url, manifests)
            if dataset == MARKET_STATS and manifests:
                newest = max(manifests)
                plots = plot_busy_markets(settings, parse_day_key(newest), manifests[newest])
                context.add_asset_metadata(plots, partition_key=newest)
        return dg.MaterializeResult(check_results=[check])

    return exported


def _upstream(data: Dataset) -> list[dg.AssetKey]:
    """Name the assets that a data set is made from: the merged catalog, the raw hours of its table, or its inputs."""
    if data.source in CATALOG_TABLES:
        return [production(data.source)]
    return [lake(raw) for raw in data.inputs or (f"raw/{data.source}",)]
