"""Hours of production as Parquet, as merged; every export is compared with what production holds."""

from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration.asset_metadata import count_production_rows
from kalshi_platform.orchestration.assets.exporting import PARITY, ExportConfig, check_parity, export_each
from kalshi_platform.orchestration.columns import lake_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import OWNERS, lake, production
from kalshi_platform.orchestration.partitions import parse_hour_key
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase
from kalshi_platform.storage.pool import Database

if TYPE_CHECKING:
    from kalshi_platform.lake.manifest import Manifest


def make_raw_asset(table: str, hours: dg.HourlyPartitionsDefinition) -> dg.AssetsDefinition:
    """Make the hourly export of one production table."""
    key = lake(f"raw/{table}")

    @dg.asset(
        key=key,
        deps=[production(table)],
        partitions_def=hours,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="lake",
        owners=OWNERS,
        kinds={"parquet"},
        pool="lake_export",
        retry_policy=RETRY,
        description=f"production/{table} as Parquet, one folder per closed hour, sorted by market and time.",
        metadata=lake_metadata(f"raw/{table}"),
        check_specs=[
            dg.AssetCheckSpec(
                PARITY,
                asset=key,
                description="The manifests promise as many rows as production holds for those hours, and name its"
                " present closes.",
            )
        ],
    )
    def exported(
        context: dg.AssetExecutionContext,
        config: ExportConfig,
        lake: LakeResource,
        production_database: ProductionDatabase,
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from kalshi_platform.lake.export import export_raw
        from kalshi_platform.lake.iceberg.replaced import registering_replaced
        from kalshi_platform.lake.layout import partition_at

        def export(partition: str) -> "Manifest":
            hour = parse_hour_key(partition)
            with registering_replaced(settings, lake.iceberg, partition_at(DATASETS[f"raw/{table}"], hour)):
                return export_raw(settings, url, table, hour, "closed", allow_fewer_rows=config.allow_fewer_rows)

        with as_failure(), production_database.database() as database:
            settings, url = lake.settings(), production_database.settings().production_url
            manifests = export_each(context, key, export)
            check = check_parity(settings, url, manifests, _count_rows(database, table, list(manifests)))
        return dg.MaterializeResult(check_results=[check])

    return exported


def _count_rows(database: Database, table: str, keys: list[str]) -> dict[str, int]:
    """Count production's rows of these hours."""
    starts = {key: parse_hour_key(key) for key in keys}
    counts = {key: count_production_rows(database, table, start, start + HOUR) for key, start in starts.items()}
    return {key: int(count["dagster/row_count"]) for key, count in counts.items()}
