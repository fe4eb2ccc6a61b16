"""Hours of production as Parquet, as merged; every export is compared with what production holds."""

import dagster as dg

from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration.assets.exporting import PARITY, ExportConfig, export_each, not_of_present_closes
from kalshi_platform.orchestration.columns import lake_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.figures import production_rows
from kalshi_platform.orchestration.keys import OWNERS, lake, production
from kalshi_platform.orchestration.partitions import HOURS, hour_of
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase


def raw_asset(table: str) -> dg.AssetsDefinition:
    """The hourly export of one production table."""
    key = lake(f"raw/{table}")

    @dg.asset(
        key=key,
        deps=[production(table)],
        partitions_def=HOURS,
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

        with as_failure(), production_database.database() as database:
            settings = lake.settings()
            url = production_database.settings().production_url
            manifests = export_each(
                context,
                key,
                lambda partition: export_raw(
                    settings, url, table, hour_of(partition), "closed", allow_fewer_rows=config.allow_fewer_rows
                ),
            )
            held = {
                partition: production_rows(database, table, hour_of(partition), hour_of(partition) + HOUR)
                for partition in manifests
            }
            stale = not_of_present_closes(settings, url, manifests)
        rows = {partition: int(figures["dagster/row_count"]) for partition, figures in held.items()}
        differing = [partition for partition, manifest in manifests.items() if manifest.rows != rows[partition]]
        return dg.MaterializeResult(
            check_results=[
                dg.AssetCheckResult(
                    check_name=PARITY,
                    passed=not differing and not stale,
                    metadata={
                        "rows_in_lake": sum(manifest.rows for manifest in manifests.values()),
                        "rows_in_production": sum(rows.values()),
                        "differing_hours": ", ".join(differing) or "none",
                        "stale": "; ".join(stale) or "none",
                    },
                )
            ]
        )

    return exported
