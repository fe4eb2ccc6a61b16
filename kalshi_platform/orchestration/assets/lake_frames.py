"""Frames as received: finished segments of a gatherer's journal → the lake, hour by hour, on the gatherer's host."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.market.times import hour_of
from kalshi_platform.orchestration.asset_metadata import time_span
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import OWNERS, WEBSOCKET, frames
from kalshi_platform.orchestration.partitions import first_start, parse_hour_key
from kalshi_platform.orchestration.resources import LakeResource, PlatformResource

if TYPE_CHECKING:
    from kalshi_platform.archive.archive_frames import ArchivedHour


def make_frames_asset(name: str, hours: dg.HourlyPartitionsDefinition) -> dg.AssetsDefinition:
    """Make the archive of one gatherer's frames; `hours` holds the running hour too."""

    @dg.asset(
        key=frames(name),
        deps=[WEBSOCKET],
        partitions_def=hours,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="lake",
        owners=OWNERS,
        kinds={"websocket"},
        retry_policy=RETRY,
        description=(
            f"What gatherer {name} received, byte for byte: the finished segments of its journal, compressed and read"
            " back, one folder per hour. Every table of the gatherer can be rebuilt from it. Made on the host of the"
            " gatherer, where the journal is; the running hour is open until its last segment is finished."
        ),
    )
    def archived(
        context: dg.AssetExecutionContext, platform: PlatformResource, lake: LakeResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from kalshi_platform.archive.archive_frames import archive_hour, find_hours_to_archive
        from kalshi_platform.lake.store import open_store

        with as_failure():
            settings, gatherer = lake.settings(), platform.gatherer(name)
            for key in sorted(context.partition_keys):
                done = archive_hour(settings, gatherer, parse_hour_key(key), platform.clock)
                context.add_asset_metadata(frames_metadata(done), partition_key=key)
            # A clock that was wrong records in hours without a partition: they hold up the removal of later segments.
            first, running = first_start(hours), hour_of(platform.clock.now())
            for hour in find_hours_to_archive(gatherer, open_store(settings).root, platform.clock):
                if not first <= hour <= running:
                    archive_hour(settings, gatherer, hour, platform.clock)
        return dg.MaterializeResult()

    return archived


def frames_metadata(done: "ArchivedHour") -> dict[str, Any]:
    """Describe an hour of a gatherer's frames as it stands in the lake."""
    manifest = done.manifest
    if manifest is None:
        return {"dagster/partition_row_count": 0, "note": "the journal has no finished segment of this hour"}
    return {
        "dagster/partition_row_count": manifest.frames,
        **time_span(manifest.time_min, manifest.time_max),
        "state": manifest.state,
        "segments": len(manifest.segments),
        "segments_added": done.added,
        "blocks": manifest.blocks,
        "damages": manifest.damages,
        "bytes": manifest.bytes,
        "bytes_raw": manifest.bytes_raw,
        "bytes_per_frame": round(manifest.bytes / manifest.frames, 1) if manifest.frames else 0.0,
    }
