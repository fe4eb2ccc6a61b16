"""The merged catalog: of every series, event and market the newest knowledge that any gatherer has."""

from collections.abc import Iterator

import dagster as dg

from kalshi_platform.orchestration.asset_metadata import count_merged_catalog_rows
from kalshi_platform.orchestration.columns import column_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import CATALOG_TABLES, OWNERS, gatherer, production
from kalshi_platform.orchestration.partitions import depend_on_all_gatherers
from kalshi_platform.orchestration.resources import ProductionDatabase


def make_merged_catalog() -> dg.AssetsDefinition:
    """Make the three assets of the merged catalog, which one step fills."""

    @dg.multi_asset(
        name="merged_catalog",
        specs=[
            dg.AssetSpec(
                production(table),
                deps=[depend_on_all_gatherers(gatherer(table))],
                description=f"All {table}, merged from the gatherers' catalogs by newest knowledge.",
                group_name="production",
                owners=OWNERS,
                kinds={"postgres"},
                metadata=column_metadata("production", table),
            )
            for table in CATALOG_TABLES
        ],
        retry_policy=RETRY,
    )
    def merge_catalog_tables(
        context: dg.AssetExecutionContext, production_database: ProductionDatabase
    ) -> Iterator[dg.MaterializeResult[None]]:
        from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog

        with as_failure(), production_database.database() as database:
            report = merge_catalog(production_database.settings(), production_database.clock)
            context.log.info("catalogs_merged %s", report)
            counts = {table: count_merged_catalog_rows(database, table) for table in CATALOG_TABLES}
        for table, metadata in counts.items():
            yield dg.MaterializeResult(asset_key=production(table), metadata=metadata)

    return merge_catalog_tables
