"""How assets are cut: by gatherer, by closed UTC hour, by closed UTC day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from kalshi_platform import config

DAY = timedelta(days=1)
HOUR_FORMAT = "%Y-%m-%d-%H:%M"
DAY_FORMAT = "%Y-%m-%d"

_START = config.partitions_start()

GATHERERS = dg.StaticPartitionsDefinition(list(config.gatherer_names()))
HOURS = dg.HourlyPartitionsDefinition(start_date=_START, timezone="UTC", fmt=HOUR_FORMAT)
DAYS = dg.DailyPartitionsDefinition(start_date=_START.replace(hour=0), timezone="UTC", fmt=DAY_FORMAT)


def from_all_gatherers(key: dg.AssetKey) -> dg.AssetDep:
    """A dependency on every gatherer's share of an asset."""
    return dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())


def hour_of(key: str) -> datetime:
    """The start of an hourly partition."""
    return datetime.strptime(key, HOUR_FORMAT).replace(tzinfo=UTC)


def day_of(key: str) -> datetime:
    """The start of a daily partition."""
    return datetime.strptime(key, DAY_FORMAT).replace(tzinfo=UTC)


def hour_key(hour: datetime) -> str:
    return hour.astimezone(UTC).strftime(HOUR_FORMAT)


def day_key(day: datetime) -> str:
    return day.astimezone(UTC).strftime(DAY_FORMAT)


def ranges(starts: Iterable[datetime], step: timedelta, longest: int) -> list[tuple[datetime, datetime]]:
    """Join neighbouring partitions into ranges (first start, last start) of at most `longest` partitions."""
    joined: list[list[datetime]] = []
    for start in sorted(set(starts)):
        if joined and start - joined[-1][-1] == step and len(joined[-1]) < longest:
            joined[-1].append(start)
        else:
            joined.append([start])
    return [(group[0], group[-1]) for group in joined]


def range_request(
    selection: Sequence[dg.AssetKey], first_key: str, last_key: str, job_name: str | None = None
) -> dg.RunRequest:
    """A request for all partitions from `first_key` to `last_key` as one run."""
    if first_key == last_key:
        return dg.RunRequest(asset_selection=list(selection), partition_key=first_key, job_name=job_name)
    tags = {"dagster/asset_partition_range_start": first_key, "dagster/asset_partition_range_end": last_key}
    return dg.RunRequest(asset_selection=list(selection), tags=tags, job_name=job_name)
