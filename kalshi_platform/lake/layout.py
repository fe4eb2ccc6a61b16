"""How data sets are cut into partitions, what these are called, and where each lies.

    {raw|processed|aggregates}/<table>/date=YYYY-MM-DD[/hour=HH]/part-NNNN-<hash>.parquet  and  _manifest.json

and the same below `open/` while rows can still come, so that a glob over `raw/` meets closed partitions only.
A partition is one UTC hour of a raw table, or one UTC day of anything else. A data file is named after its content, so
that an export that replaces another never writes over a file that is being read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

from kalshi_platform.errors import UnknownPartition
from kalshi_platform.lake.datasets import DATASETS, Dataset, Layer
from kalshi_platform.market.times import HOUR

MANIFEST_NAME = "_manifest.json"
OPEN = "open/"
"""What the paths of partitions begin with whose rows can still come."""

_HASH_DIGITS = 16
_KEY = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:[T-](?P<hour>\d\d)(?::?(?P<minute>\d\d))?(?::(?P<second>\d\d))?(?:Z|\+00:00)?)?"
)


@dataclass(frozen=True, order=True)
class Partition:
    """One partition of one data set: rows with start <= time < end (aware, UTC)."""

    dataset: Dataset
    start: datetime

    @property
    def end(self) -> datetime:
        """The first moment after the partition."""
        return self.start + self.dataset.span

    @property
    def source_start(self) -> datetime:
        """The first moment of the hours that it is made from."""
        return self.start - self.dataset.hours_before * HOUR

    @property
    def source_end(self) -> datetime:
        """The first moment after the hours that it is made from."""
        return self.end + self.dataset.hours_after * HOUR

    @property
    def key(self) -> str:
        """The key that Dagster uses: `2026-11-23-04:00` for an hour, `2026-11-23` for a day."""
        return f"{self.start:%Y-%m-%d-%H:%M}" if self.dataset.kind == "hourly" else f"{self.start:%Y-%m-%d}"

    @property
    def path(self) -> str:
        """The folder of the partition once it is closed, relative to the lake's root."""
        return self._path_below(self.dataset.name)

    @property
    def open_path(self) -> str:
        """The folder of the partition while rows can still come; earlier versions put it into `path`, too."""
        return f"{OPEN}{self.path}"

    @property
    def former_path(self) -> str | None:
        """The folder in which an earlier version put the partition, where it is another one."""
        former = self.dataset.formerly
        return None if former is None else self._path_below(former)

    @property
    def manifest_path(self) -> str:
        """The path of the closed partition's manifest, relative to the lake's root."""
        return f"{self.path}/{MANIFEST_NAME}"

    def _path_below(self, name: str) -> str:
        hour = self.start.hour if self.dataset.kind == "hourly" else None
        return partition_path(self.dataset.layer, name, self.start.date(), hour)


def partition_path(layer: Layer, table: str, day: date, hour: int | None = None) -> str:
    """The folder of a partition, relative to the lake's root."""
    path = f"{layer}/{table}/date={day:%Y-%m-%d}"
    return path if hour is None else f"{path}/hour={hour:02d}"


def part_name(number: int, sha256: str) -> str:
    """The name of the data file `number` (from 0) of a partition, whose content has this SHA-256 (hex)."""
    return f"part-{number:04d}-{sha256[:_HASH_DIGITS]}.parquet"


def is_part_name(name: str) -> bool:
    """Whether `name` is a data file of a partition; version 0.1.0 named them by their number alone."""
    return re.fullmatch(rf"part-\d{{4,}}(-[0-9a-f]{{{_HASH_DIGITS}}})?\.parquet", name) is not None


def find_dataset(name: str) -> Dataset:
    """The data set called `layer/name`; a name alone means the raw one. Raises UnknownPartition."""
    data = DATASETS.get(name) or DATASETS.get(f"raw/{name}")
    if data is None:
        raise UnknownPartition(f"the lake has no table {name!r}; it has {', '.join(sorted(DATASETS))}")
    return data


def partition_at(data: Dataset, moment: datetime) -> Partition:
    """The partition that holds `moment` (aware)."""
    utc = _utc(moment)
    start = utc.replace(minute=0, second=0, microsecond=0)
    return Partition(data, start if data.kind == "hourly" else start.replace(hour=0))


def partition_starting(data: Dataset, start: datetime | date) -> Partition:
    """The partition that starts at `start` (a date means midnight UTC). Raises UnknownPartition for another moment."""
    moment = start if isinstance(start, datetime) else datetime(start.year, start.month, start.day, tzinfo=UTC)
    partition = partition_at(data, moment)
    if partition.start != moment:
        raise UnknownPartition(f"{moment.isoformat()} is not the start of a partition of {data.key} ({data.kind})")
    return partition


def parse_partition(data: Dataset, text: str) -> Partition:
    """Read a partition key: `2026-11-23-04:00` or `2026-11-23T04` for an hour, `2026-11-23` for a day, all UTC.

    Raises UnknownPartition, saying what the table's keys look like.
    """
    example = "2026-11-23T04 or 2026-11-23-04:00" if data.kind == "hourly" else "2026-11-23"
    wanted = f"{data.key} has {data.kind} partitions, written like {example} (UTC)"
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise UnknownPartition(f"{text!r} is not a partition key: {wanted}")
    hour = match["hour"]
    if data.kind == "hourly" and hour is None:
        raise UnknownPartition(f"{text!r} names a day, not an hour: {wanted}")
    if int(match["minute"] or 0) or int(match["second"] or 0) or (data.kind == "daily" and int(hour or 0)):
        raise UnknownPartition(f"{text!r} lies inside a partition, not at its start: {wanted}")
    try:
        day = date.fromisoformat(match["date"])
        start = datetime(day.year, day.month, day.day, int(hour or 0), tzinfo=UTC)
    except ValueError as error:
        raise UnknownPartition(f"{text!r} is not a time ({error}): {wanted}") from error
    return Partition(data, start)


def raw_partitions_of(partition: Partition) -> list[Partition]:
    """The raw partitions that a partition is made from, where it is made from raw hours of the lake."""
    hours = (partition.source_end - partition.source_start) // HOUR
    return [
        Partition(DATASETS[key], partition.source_start + number * HOUR)
        for key in partition.dataset.inputs
        for number in range(hours)
    ]


def partitions_between(data: Dataset, start: datetime, end: datetime) -> Iterator[Partition]:
    """Yield the partitions that hold any moment of [start, end), ascending."""
    end = _utc(end)
    partition = partition_at(data, start)
    while partition.start < end:
        yield partition
        partition = Partition(data, partition.end)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise UnknownPartition(f"{moment.isoformat()} has no time zone; the lake's times are UTC")
    return moment.astimezone(UTC)
