"""The merged catalog: of every series, event and market the newest knowledge any gatherer has."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from kalshi_platform.orchestration.columns import column_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import CATALOG_TABLES, OWNERS, gatherer, production
from kalshi_platform.orchestration.partitions import from_all_gatherers
from kalshi_platform.orchestration.resources import ProductionDatabase


@dg.multi_asset(
    name="merged_catalog",
    specs=[
        dg.AssetSpec(
            production(table),
            deps=[from_all_gatherers(gatherer(table))],
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
    """Merge all three at once."""
    from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog

    counts: dict[str, Any] = {}
    with as_failure():
        report = merge_catalog(production_database.settings(), production_database.clock)
        context.log.info(f"merged the catalogs: {report}")
        with production_database.database() as database, database.transaction() as transaction:
            for table in CATALOG_TABLES:
                # Names from our own schema, no input.
                query = f"SELECT count(*), min(first_seen_at), max(known_at) FROM {table}"  # noqa: S608
                counts[table] = transaction.fetch_one(query) or (0, None, None)
    for table in CATALOG_TABLES:
        count, first, last = counts[table]
        yield dg.MaterializeResult(
            asset_key=production(table),
            metadata={
                "dagster/row_count": int(count),
                **({"time_min": first.isoformat(), "time_max": last.isoformat()} if first and last else {}),
            },
        )
