"""The schedule that archives frames: every hour of which the journal holds something that the lake does not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform import config
from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration.keys import frames
from kalshi_platform.orchestration.partitions import hour_key, parse_hour_key
from kalshi_platform.orchestration.resources import LakeResource, PlatformResource
from kalshi_platform.orchestration.schedules.guards import evaluate_or_skip, with_run_keys
from kalshi_platform.orchestration.schedules.missing import PartitionedAssets, in_progress, request_runs

if TYPE_CHECKING:
    from kalshi_platform.lake.settings import LakeSettings


def make_frames_schedule(names: Sequence[str], first_hour: datetime, job: Any) -> dg.ScheduleDefinition:
    """Make the schedule of the gatherers that this location hosts; `first_hour`: the start of the first partition."""
    assets = PartitionedAssets(HOUR, parse_hour_key, hour_key, tuple(map(frames, names)))

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
            busy = in_progress(context.instance, assets)
            waiting = _find_waiting(platform, names, lake.settings(), first_hour)
            missing = {selection: kept for selection, keys in waiting.items() if (kept := sorted(set(keys) - busy))}
            requests = with_run_keys(context, request_runs(assets, missing))
            return requests or dg.SkipReason("the lake holds every finished segment of the journals on this host")

        return evaluate_or_skip(evaluate, lake.settings, *(partial(config.load_gatherer, name) for name in names))

    return archive_frames_schedule


def _find_waiting(
    platform: PlatformResource, names: Sequence[str], settings: LakeSettings, first_hour: datetime
) -> dict[tuple[dg.AssetKey, ...], list[str]]:
    """Find the hours to archive by the gatherers that need it: selection → partition keys."""
    from kalshi_platform.archive.archive_frames import find_hours_to_archive
    from kalshi_platform.lake.store import open_store

    root = open_store(settings).root
    by_hour: dict[datetime, list[str]] = defaultdict(list)
    for name in names:
        for hour in find_hours_to_archive(platform.gatherer(name), root, platform.clock):
            if hour >= first_hour:
                by_hour[hour].append(name)
    found: dict[tuple[dg.AssetKey, ...], list[str]] = defaultdict(list)
    for hour, waiting in sorted(by_hour.items()):
        found[tuple(map(frames, waiting))].append(hour_key(hour))
    return dict(found)
