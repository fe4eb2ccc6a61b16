"""The sensor that brings the lake up to date with closes that no run of Dagster made, from a shell say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import dagster as dg

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.orchestration.jobs.batch import close_hours_job
from kalshi_platform.orchestration.partitions import hour_key
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase
from kalshi_platform.orchestration.schedules.guards import evaluate_or_skip
from kalshi_platform.orchestration.schedules.hours import HOURLY_ASSETS
from kalshi_platform.orchestration.schedules.missing import in_progress, list_outdated, request_runs
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).parents[1] / "queries.sql")


def make_closes_sensor(first_hour: datetime) -> dg.SensorDefinition:
    """Make the sensor; `first_hour`: the start of the first hourly partition."""

    @dg.sensor(
        name="closes_sensor",
        job=close_hours_job,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Exports the hours that were closed (again) without Dagster, within a minute or two: what the lake has of "
            "them is older than the close. Once per close; what fails is requested again by fill_missing_partitions, "
            "and days follow with fill_missing_days."
        ),
    )
    def exports_follow_closes(
        context: dg.SensorEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
    ) -> dg.SensorResult | dg.SkipReason:
        return evaluate_or_skip(
            lambda: _follow(context, production_database, lake, first_hour),
            production_database.settings,
            lake.settings,
        )

    return exports_follow_closes


def _follow(
    context: dg.SensorEvaluationContext, resource: ProductionDatabase, lake: LakeResource, first_hour: datetime
) -> dg.SensorResult:
    with resource.database() as database, database.transaction() as transaction:
        row = transaction.fetch_one(_SQL["newest_close"])
        newest = 0 if row is None else int(row[0])
        seen = newest if context.cursor is None else int(context.cursor)
        # A production that was restored numbers anew; what it closed before is the schedule's.
        closed = transaction.fetch_all(_SQL["hours_closed_after"], {"close_no": min(seen, newest)})
    hours = [hour for (hour,) in closed if hour >= first_hour]
    busy = in_progress(context.instance, HOURLY_ASSETS) if hours else set()
    keys = [key for key in map(hour_key, hours) if key not in busy]
    outdated = list_outdated(lake.settings(), database.url, HOURLY_ASSETS, keys, SYSTEM_CLOCK.now())
    requests = request_runs(HOURLY_ASSETS, _by_selection(keys, outdated.exportable))
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else f"{len(closed)} hours were closed since, and the lake has them as they are",
        cursor=str(newest),
    )


def _by_selection(
    keys: Sequence[str], outdated: Mapping[dg.AssetKey, set[str]]
) -> dict[tuple[dg.AssetKey, ...], list[str]]:
    """Which assets each partition lacks: selection → partition keys."""
    found: dict[tuple[dg.AssetKey, ...], list[str]] = defaultdict(list)
    for key in keys:
        selection = tuple(asset for asset in HOURLY_ASSETS.downstream if key in outdated.get(asset, ()))
        if selection:
            found[selection].append(key)
    return dict(found)
