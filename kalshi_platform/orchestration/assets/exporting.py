"""What exports of all data sets share: configuration, figures, a check, and what one bad partition does to a range."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.errors import ConfigurationError, PermanentError, SchemaMismatch
from kalshi_platform.orchestration.figures import span

if TYPE_CHECKING:
    from kalshi_platform.lake.manifest import Manifest
    from kalshi_platform.lake.settings import LakeSettings

PARITY = "export_parity"


class ExportConfig(dg.Config):
    """`allow_fewer_rows`: publish what is left although production has lost rows since the close or the last export."""

    allow_fewer_rows: bool = False


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
        told = "\n".join(f"{type(error).__name__}: {error}" for error in refused.values())
        raise dg.Failure(description=told, metadata={"refused": ", ".join(refused)}, allow_retries=False)
    for partition, manifest in done.items():
        context.add_asset_metadata(manifest_metadata(manifest), partition_key=partition)
    return done


def not_of_present_closes(lake: "LakeSettings", production_url: str, manifests: "dict[str, Manifest]") -> list[str]:
    """Partitions, with the reason, that are not those of production's present closes although they were just made."""
    from kalshi_platform.lake.layout import lake_table, parse_partition
    from kalshi_platform.lake.stale import stale_partitions

    partitions = [parse_partition(lake_table(each.table), each.partition) for each in manifests.values()]
    return [f"{each.partition.key}: {each.reason}" for each in stale_partitions(lake, production_url, partitions)]
