"""The sensor that evaluates whether the newest hours and days are there, without a run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import dagster as dg
import msgspec

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.orchestration.checks.newest_partitions import (
    CHECK_NAME,
    CHECKED,
    PartitionStatus,
    judge_newest,
    last_due,
    read_newest,
)
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase
from kalshi_platform.orchestration.schedules.guards import evaluate_or_skip

PATIENCE = timedelta(hours=2)
"""How long a partition may be missing before the check fails.

After a start, missing hours are made from :20 on, then days from :50 on.
"""


class Seen(msgspec.Struct):
    """The cursor: what was due when all was there last; since when each asset lacks a partition; what was published.

    `missing`: asset → the moment. `published`: asset → newest partition and outcome, as the check says them now.
    """

    settled: str = ""
    missing: dict[str, datetime] = {}
    published: dict[str, tuple[str | None, bool]] = {}


def update(seen: Seen, judged: list[PartitionStatus], due: str, now: datetime) -> list[dg.AssetCheckEvaluation]:
    """Update the cursor; return the outcomes to publish: those that are not what was published last.

    A partition that is missing is published as such after `PATIENCE`.
    """
    events = []
    for each in judged:
        name = each.key.to_user_string()
        if each.is_made:
            seen.missing.pop(name, None)
        elif now - seen.missing.setdefault(name, now) < PATIENCE:
            continue
        outcome = (each.partition, each.is_made)
        if seen.published.get(name) != outcome:
            seen.published[name] = outcome
            events.append(
                dg.AssetCheckEvaluation(
                    asset_key=each.key, check_name=CHECK_NAME, passed=each.is_made, metadata=as_metadata(each.metadata)
                )
            )
    seen.settled = "" if seen.missing else due
    return events


def as_metadata(texts: Mapping[str, str]) -> dict[str, dg.MetadataValue[str]]:
    """Return texts as metadata."""
    return {name: dg.MetadataValue.text(text) for name, text in texts.items()}


def make_newest_partitions_sensor(first_hour: datetime) -> dg.SensorDefinition:
    """Make the sensor; `first_hour`: the start of the first hourly partition."""

    @dg.sensor(
        name="newest_partitions_sensor",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Evaluates newest_partition_is_made for every hourly and daily asset of production and the lake, when an "
            "hour or a day becomes due and while one is missing. A partition that stays missing for two hours fails."
        ),
    )
    def newest_partitions(
        context: dg.SensorEvaluationContext, production_database: ProductionDatabase, lake: LakeResource
    ) -> dg.SensorResult | dg.SkipReason:
        return evaluate_or_skip(
            lambda: _evaluate(context.cursor, production_database, lake, first_hour),
            production_database.settings,
            lake.settings,
        )

    return newest_partitions


def _evaluate(
    cursor: str | None, resource: ProductionDatabase, lake: LakeResource, first_hour: datetime
) -> dg.SensorResult | dg.SkipReason:
    seen = Seen() if cursor is None else msgspec.json.decode(cursor, type=Seen)
    now = SYSTEM_CLOCK.now()
    due = " ".join(each.isoformat() for each in last_due(now))
    if seen.settled == due:
        return dg.SkipReason("no other hour or day is due since all were there")
    with resource.database() as database:
        newest = read_newest(database, first_hour, now)
    judged = list(judge_newest(lake.settings(), newest, CHECKED))
    events = update(seen, judged, due, now)
    missing = ", ".join(sorted(seen.missing)) or "none"
    return dg.SensorResult(
        asset_events=events, skip_reason=f"missing: {missing}", cursor=msgspec.json.encode(seen).decode()
    )
