"""Which tables the lake has, how they are cut into partitions, and where each partition lies.

    {raw|processed|aggregates}/<table>/date=YYYY-MM-DD[/hour=HH]/part-NNNN-<hash>.parquet  and  _manifest.json

A partition is one UTC hour of a raw table, or one UTC day of anything else. A data file is named after its content, so
that an export that replaces another never writes over a file that somebody may be reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal, TypeAlias

from kalshi_platform.errors import UnknownPartition
from kalshi_platform.market.tables import MERGED_TABLES
from kalshi_platform.market.times import HOUR

Layer: TypeAlias = Literal["raw", "processed", "aggregates"]
Kind: TypeAlias = Literal["hourly", "daily"]

MANIFEST_NAME = "_manifest.json"
DAY = timedelta(days=1)
LAYERS: tuple[Layer, ...] = ("raw", "processed", "aggregates")
RAW_TABLES = (*MERGED_TABLES, "book_checkpoints")
"""Tables of production that go to the lake as they are, hour by hour."""
FORMER_NAMES: Mapping[str, str] = {"book_checkpoints": "book_anchors"}
"""Raw tables whose partitions version 0.1 put under another name; readers look there as well."""
DAILY_DATASETS = ("processed/trades", "aggregates/candles_1m")
"""Data sets that are derived from production, day by day."""

_HASH_DIGITS = 16
_KEY = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:[T-](?P<hour>\d\d)(?::?(?P<minute>\d\d))?(?::(?P<second>\d\d))?(?:Z|\+00:00)?)?"
)


@dataclass(frozen=True, order=True)
class LakeTable:
    """A table of the lake; `key` is `<layer>/<name>`."""

    layer: Layer
    name: str

    @property
    def key(self) -> str:
        return f"{self.layer}/{self.name}"

    @property
    def kind(self) -> Kind:
        return "hourly" if self.layer == "raw" else "daily"

    @property
    def span(self) -> timedelta:
        """The length of one partition."""
        return HOUR if self.kind == "hourly" else DAY


@dataclass(frozen=True, order=True)
class Partition:
    """One partition of one table: rows with start <= time < end (aware, UTC)."""

    table: LakeTable
    start: datetime

    @property
    def end(self) -> datetime:
        return self.start + self.table.span

    @property
    def key(self) -> str:
        """The key that Dagster uses: `2026-11-23-04:00` for an hour, `2026-11-23` for a day."""
        return f"{self.start:%Y-%m-%d-%H:%M}" if self.table.kind == "hourly" else f"{self.start:%Y-%m-%d}"

    @property
    def path(self) -> str:
        """The folder of the partition, relative to the lake's root."""
        hour = self.start.hour if self.table.kind == "hourly" else None
        return partition_path(self.table.layer, self.table.name, self.start.date(), hour)

    @property
    def former_path(self) -> str | None:
        """The folder in which version 0.1 put the partition, where it is another one."""
        former = FORMER_NAMES.get(self.table.name) if self.table.layer == "raw" else None
        return None if former is None else partition_path("raw", former, self.start.date(), self.start.hour)

    @property
    def manifest_path(self) -> str:
        return f"{self.path}/{MANIFEST_NAME}"


TABLES: dict[str, LakeTable] = {
    table.key: table
    for table in (
        *(LakeTable("raw", name) for name in RAW_TABLES),
        LakeTable("processed", "trades"),
        LakeTable("aggregates", "candles_1m"),
    )
}


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


def lake_table(name: str) -> LakeTable:
    """The table called `layer/name`; a name alone means the raw table. Raises UnknownPartition."""
    table = TABLES.get(name) or TABLES.get(f"raw/{name}")
    if table is None:
        raise UnknownPartition(f"the lake has no table {name!r}; it has {', '.join(sorted(TABLES))}")
    return table


def partition_at(table: LakeTable, moment: datetime) -> Partition:
    """The partition that holds `moment` (aware)."""
    utc = _utc(moment)
    start = utc.replace(minute=0, second=0, microsecond=0)
    return Partition(table, start if table.kind == "hourly" else start.replace(hour=0))


def partition_starting(table: LakeTable, start: datetime | date) -> Partition:
    """The partition that starts at `start` (a date means midnight UTC). Raises UnknownPartition for another moment."""
    moment = start if isinstance(start, datetime) else datetime(start.year, start.month, start.day, tzinfo=UTC)
    partition = partition_at(table, moment)
    if partition.start != moment:
        raise UnknownPartition(f"{moment.isoformat()} is not the start of a partition of {table.key} ({table.kind})")
    return partition


def parse_partition(table: LakeTable, text: str) -> Partition:
    """Read a partition key: `2026-11-23-04:00` or `2026-11-23T04` for an hour, `2026-11-23` for a day, all UTC.

    Raises UnknownPartition, saying what the table's keys look like.
    """
    example = "2026-11-23T04 or 2026-11-23-04:00" if table.kind == "hourly" else "2026-11-23"
    wanted = f"{table.key} has {table.kind} partitions, written like {example} (UTC)"
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise UnknownPartition(f"{text!r} is not a partition key: {wanted}")
    hour = match["hour"]
    if table.kind == "hourly" and hour is None:
        raise UnknownPartition(f"{text!r} names a day, not an hour: {wanted}")
    if int(match["minute"] or 0) or int(match["second"] or 0) or (table.kind == "daily" and int(hour or 0)):
        raise UnknownPartition(f"{text!r} lies inside a partition, not at its start: {wanted}")
    try:
        day = date.fromisoformat(match["date"])
        start = datetime(day.year, day.month, day.day, int(hour or 0), tzinfo=UTC)
    except ValueError as error:
        raise UnknownPartition(f"{text!r} is not a time ({error}): {wanted}") from error
    return Partition(table, start)


def partitions_between(table: LakeTable, start: datetime, end: datetime) -> Iterator[Partition]:
    """Yield the partitions that hold any moment of [start, end), ascending."""
    end = _utc(end)
    partition = partition_at(table, start)
    while partition.start < end:
        yield partition
        partition = Partition(table, partition.end)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise UnknownPartition(f"{moment.isoformat()} has no time zone; the lake's times are UTC")
    return moment.astimezone(UTC)
