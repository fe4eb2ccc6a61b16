"""Hours of production as Parquet, as merged; every export is compared with what production holds."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration.columns import lake_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.figures import production_rows, span
from kalshi_platform.orchestration.keys import OWNERS, lake, production
from kalshi_platform.orchestration.partitions import HOURS, hour_of
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase

if TYPE_CHECKING:
    from kalshi_platform.lake.manifest import Manifest

PARITY = "export_parity"


def manifest_metadata(manifest: "Manifest") -> dict[str, Any]:
    """The figures of an exported partition."""
    return {
        "dagster/row_count": manifest.rows,
        **span(manifest.time_min, manifest.time_max),
        "bytes": sum(file.bytes for file in manifest.files),
        "files": len(manifest.files),
        "state": manifest.state,
        "schema_version": manifest.schema_version,
        "sha256": ", ".join(file.sha256[:12] for file in manifest.files),
    }


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
                PARITY, asset=key, description="The manifests promise as many rows as production holds for those hours."
            )
        ],
    )
    def exported(
        context: dg.AssetExecutionContext, lake: LakeResource, production_database: ProductionDatabase
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from kalshi_platform.lake.export import export_raw

        rows_in_lake = rows_in_production = 0
        differing: list[str] = []
        with as_failure(), production_database.database() as database:
            settings = lake.settings()
            url = production_database.settings().production_url
            for partition in sorted(context.partition_keys):
                hour = hour_of(partition)
                manifest = export_raw(settings, url, table, hour, "closed")
                context.add_asset_metadata(manifest_metadata(manifest), partition_key=partition)
                held = production_rows(database, table, hour, hour + HOUR)["dagster/row_count"]
                rows_in_lake += manifest.rows
                rows_in_production += held
                if held != manifest.rows:
                    differing.append(partition)
        return dg.MaterializeResult(
            check_results=[
                dg.AssetCheckResult(
                    check_name=PARITY,
                    passed=not differing,
                    metadata={
                        "rows_in_lake": rows_in_lake,
                        "rows_in_production": rows_in_production,
                        "differing_hours": ", ".join(differing) or "none",
                    },
                )
            ]
        )

    return exported
