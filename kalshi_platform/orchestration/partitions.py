"""Partitions of assets: one per gatherer, per closed UTC hour, per bucket of its markets, or per closed UTC day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from kalshi_platform.market.parts import MarketPart

DAY = timedelta(days=1)
HOUR_FORMAT = "%Y-%m-%d-%H:%M"
DAY_FORMAT = "%Y-%m-%d"
HOUR_DIMENSION, BUCKET_DIMENSION = "hour", "bucket"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
"""Dagster's tags of a run that makes a range of partitions."""


@dataclass(frozen=True)
class Partitions:
    """The partitions definitions of one code location; every asset takes one of them."""

    gatherers: dg.StaticPartitionsDefinition
    hours: dg.HourlyPartitionsDefinition
    days: dg.DailyPartitionsDefinition
    hour_buckets: dg.MultiPartitionsDefinition | None = None
    """Hours × buckets of markets; None where hours are closed at once only."""

    @property
    def first_hour(self) -> datetime:
        """The start of the first hourly partition, UTC."""
        return first_start(self.hours)

    @property
    def first_day(self) -> datetime:
        """The start of the first daily partition, UTC."""
        return first_start(self.days)


def make_partitions(gatherers: Sequence[str], start: datetime, close_buckets: int = 1) -> Partitions:
    """Make the definitions: one partition per gatherer; hours and days from `start` on, which is a full hour, UTC.

    With several `close_buckets` there is one per hour and bucket of the markets, too.
    """
    hours = dg.HourlyPartitionsDefinition(start_date=start, timezone="UTC", fmt=HOUR_FORMAT)
    buckets = dg.StaticPartitionsDefinition(list_bucket_keys(close_buckets))
    return Partitions(
        gatherers=dg.StaticPartitionsDefinition(list(gatherers)),
        hours=hours,
        days=dg.DailyPartitionsDefinition(start_date=start.replace(hour=0), timezone="UTC", fmt=DAY_FORMAT),
        hour_buckets=None
        if close_buckets == 1
        else dg.MultiPartitionsDefinition({HOUR_DIMENSION: hours, BUCKET_DIMENSION: buckets}),
    )


def make_running_hours(start: datetime) -> dg.HourlyPartitionsDefinition:
    """Make the hours from `start` on, with the one that runs."""
    return dg.HourlyPartitionsDefinition(start_date=start, timezone="UTC", fmt=HOUR_FORMAT, end_offset=1)


def list_bucket_keys(count: int) -> list[str]:
    """Return the keys of the buckets of a division, such as 1/4 … 4/4."""
    return [str(MarketPart(number, count)) for number in range(1, count + 1)]


def hour_bucket_key(hour: datetime, bucket: str) -> dg.MultiPartitionKey:
    """Return the key of one bucket (`2/4`) of the hour that starts at `hour`."""
    return dg.MultiPartitionKey({HOUR_DIMENSION: hour_key(hour), BUCKET_DIMENSION: bucket})


def depend_on_all_gatherers(key: dg.AssetKey) -> dg.AssetDep:
    """Return a dependency on the partitions of all gatherers of an asset."""
    return dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())


def parse_hour_key(key: str) -> datetime:
    """Return the start of an hourly partition, UTC. Raises ValueError for the key of another kind of partition."""
    return datetime.strptime(key, HOUR_FORMAT).replace(tzinfo=UTC)


def parse_day_key(key: str) -> datetime:
    """Return the start of a daily partition, UTC. Raises ValueError for the key of another kind of partition."""
    return datetime.strptime(key, DAY_FORMAT).replace(tzinfo=UTC)


def hour_key(hour: datetime) -> str:
    """Return the key of the hourly partition that starts at `hour`, such as 2026-11-20-07:00."""
    return hour.astimezone(UTC).strftime(HOUR_FORMAT)


def day_key(day: datetime) -> str:
    """Return the key of the daily partition that starts at `day`, such as 2026-11-20."""
    return day.astimezone(UTC).strftime(DAY_FORMAT)


def join_ranges(starts: Iterable[datetime], step: timedelta, longest: int) -> list[tuple[datetime, datetime]]:
    """Join neighbouring partitions into ranges (first start, last start) of at most `longest` partitions."""
    joined: list[list[datetime]] = []
    for start in sorted(set(starts)):
        if joined and start - joined[-1][-1] == step and len(joined[-1]) < longest:
            joined[-1].append(start)
        else:
            joined.append([start])
    return [(group[0], group[-1]) for group in joined]


def request_range(selection: Sequence[dg.AssetKey], first_key: str, last_key: str) -> dg.RunRequest:
    """Request all partitions from `first_key` to `last_key` of the selected assets as one run."""
    if first_key == last_key:
        return dg.RunRequest(asset_selection=list(selection), partition_key=first_key)
    tags = {RANGE_START: first_key, RANGE_END: last_key}
    return dg.RunRequest(asset_selection=list(selection), tags=tags)


def first_start(partitions: dg.TimeWindowPartitionsDefinition) -> datetime:
    """Return the start of the first partition, UTC."""
    return datetime.fromtimestamp(partitions.start.timestamp(), tz=UTC)
