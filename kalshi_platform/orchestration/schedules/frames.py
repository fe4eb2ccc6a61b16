"""The schedule that archives frames: every hour of which the journal holds something that the lake does not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform import config
from kalshi_platform.market.times import HOUR, hour_of
from kalshi_platform.orchestration.keys import frames
from kalshi_platform.orchestration.partitions import hour_key, parse_hour_key
from kalshi_platform.orchestration.resources import LakeResource, PlatformResource
from kalshi_platform.orchestration.schedules.guards import evaluate_or_skip, with_run_keys
from kalshi_platform.orchestration.schedules.missing import PartitionedAssets, in_progress, request_runs

if TYPE_CHECKING:
    from kalshi_platform.lake.settings import LakeSettings


def make_frames_schedule(names: Sequence[str], first_hour: datetime, job: Any) -> dg.ScheduleDefinition:
    """Make the schedule of the gatherers that this location hosts; `first_hour`: the start of the first partition."""

    @dg.schedule(
        job=job,
        cron_schedule="3,33 * * * *",
        execution_timezone="UTC",
        name="archive_frames_schedule",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "At :03 and :33: archives every hour of which a journal on this host holds finished segments that the lake"
            " does not hold, verified; the running hour too, and hours that failed before. Neighbouring hours go into"
            " one run."
        ),
    )
    def archive_frames_schedule(
        context: dg.ScheduleEvaluationContext, platform: PlatformResource, lake: LakeResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        def evaluate() -> list[dg.RunRequest] | dg.SkipReason:
            busy = in_progress(context.instance, _assets_of(names))
            requests = request_unarchived(platform, lake.settings(), names, first_hour, busy)
            if not requests:
                return dg.SkipReason("the lake holds every finished segment of the journals on this host")
            return with_run_keys(context, requests)

        return evaluate_or_skip(evaluate, lake.settings, *(partial(config.load_gatherer, name) for name in names))

    return archive_frames_schedule


def request_unarchived(
    platform: PlatformResource, lake: LakeSettings, names: Sequence[str], first_hour: datetime, busy: set[str]
) -> list[dg.RunRequest]:
    """Request the hours that are not archived; `busy`: partitions that a run is about to make.

    Hours without a partition, of a clock that was wrong, are archived by any run: the running hour's is requested.
    """
    from kalshi_platform.archive.archive_frames import find_hours_to_archive
    from kalshi_platform.lake.store import open_store

    root = open_store(lake).root
    running = hour_of(platform.clock.now())
    by_hour: dict[datetime, list[str]] = defaultdict(list)
    for name in names:
        hours = find_hours_to_archive(platform.gatherer(name), root, platform.clock)
        for hour in {hour if first_hour <= hour <= running else running for hour in hours}:
            if hour_key(hour) not in busy:
                by_hour[hour].append(name)
    missing: dict[tuple[dg.AssetKey, ...], list[str]] = defaultdict(list)
    for hour, waiting in sorted(by_hour.items()):
        missing[tuple(map(frames, waiting))].append(hour_key(hour))
    return request_runs(_assets_of(names), missing)


def _assets_of(names: Sequence[str]) -> PartitionedAssets:
    return PartitionedAssets(HOUR, parse_hour_key, hour_key, tuple(map(frames, names)))
