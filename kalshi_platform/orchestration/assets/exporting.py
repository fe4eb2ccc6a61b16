"""Exports of all data sets: configuration, one bad partition of a range, and the check of what was written."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.errors import ConfigurationError, PermanentError, SchemaMismatch
from kalshi_platform.orchestration.asset_metadata import manifest_metadata

if TYPE_CHECKING:
    from kalshi_platform.lake.manifest import Manifest
    from kalshi_platform.lake.settings import LakeSettings

PARITY = "export_parity"


class ExportConfig(dg.Config):
    """`allow_fewer_rows`: publish what is left although production has lost rows since the close or the last export."""

    allow_fewer_rows: bool = False


def export_each(
    context: dg.AssetExecutionContext, key: dg.AssetKey, export: "Callable[[str], Manifest]"
) -> "dict[str, Manifest]":
    """Export the run's partitions one after the other; a partition that cannot be exported keeps no other from it.

    Raises a Failure that names those; the others count as materialized all the same.
    """
    done: dict[str, Manifest] = {}
    refused: dict[str, PermanentError] = {}
    for partition in sorted(context.partition_keys):
        try:
            done[partition] = export(partition)
        except (ConfigurationError, SchemaMismatch):  # true of all of them
            raise
        except PermanentError as error:
            refused[partition] = error
    if refused:
        for partition, manifest in done.items():
            metadata = manifest_metadata(manifest)
            context.log_event(dg.AssetMaterialization(key, partition=partition, metadata=metadata))
        reasons = "\n".join(f"{type(error).__name__}: {error}" for error in refused.values())
        raise dg.Failure(description=reasons, metadata={"refused": ", ".join(refused)}, allow_retries=False)
    for partition, manifest in done.items():
        context.add_asset_metadata(manifest_metadata(manifest), partition_key=partition)
    return done


def check_parity(
    lake: "LakeSettings",
    production_url: str,
    manifests: "dict[str, Manifest]",
    rows_in_production: dict[str, int] | None = None,
) -> dg.AssetCheckResult:
    """Check that the manifests just written name production's present closes, and its row counts where given."""
    stale = _find_stale(lake, production_url, manifests)
    metadata: dict[str, Any] = {"stale": "; ".join(stale) or "none"}
    differing: list[str] = []
    if rows_in_production is not None:
        differing = [key for key, manifest in manifests.items() if manifest.rows != rows_in_production[key]]
        metadata |= {
            "rows_in_lake": sum(manifest.rows for manifest in manifests.values()),
            "rows_in_production": sum(rows_in_production.values()),
            "differing_hours": ", ".join(differing) or "none",
        }
    return dg.AssetCheckResult(check_name=PARITY, passed=not differing and not stale, metadata=metadata)


def _find_stale(lake: "LakeSettings", production_url: str, manifests: "dict[str, Manifest]") -> list[str]:
    from kalshi_platform.lake.layout import find_dataset, parse_partition
    from kalshi_platform.lake.stale import stale_partitions

    partitions = [parse_partition(find_dataset(each.table), each.partition) for each in manifests.values()]
    return [f"{each.partition.key}: {each.reason}" for each in stale_partitions(lake, production_url, partitions)]
