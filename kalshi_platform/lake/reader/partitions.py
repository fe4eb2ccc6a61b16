"""Rows of a range, read partition by partition as their manifests say."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalshi_platform.errors import LakeCorrupt, LakeUnavailable, MissingPartition
from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.lake.layout import Partition, partitions_between
from kalshi_platform.lake.manifest import Manifest, find_manifest
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore

Holes: TypeAlias = Literal["raise", "mark"]
_MAX_REPLACEMENTS = 5


@dataclass(frozen=True)
class AbsentPartition:
    """A partition that a reader wanted and that is not there: `missing`, or `open` while only closed ones count."""

    partition: Partition
    reason: Literal["missing", "open"]


def missing_partitions(
    lake: Lake, data: Dataset, start: datetime, end: datetime, *, open: bool = False
) -> list[AbsentPartition]:
    """The partitions that a data set lacks in [start, end), ascending."""
    found = _find_partitions(open_store(lake), data, start, end, open)
    return [each for each in found if isinstance(each, AbsentPartition)]


def read_rows(
    lake: Lake,
    data: Dataset,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None,
    *,
    holes: Holes,
    open: bool,
) -> pl.DataFrame:
    """The rows of [start, end) in the order of the data set. Raises MissingPartition, LakeCorrupt, LakeUnavailable."""
    return read_rows_with_manifests(lake, data, start, end, tickers, holes=holes, open=open)[0]


def read_rows_with_manifests(
    lake: Lake,
    data: Dataset,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None,
    *,
    holes: Holes,
    open: bool,
) -> tuple[pl.DataFrame, list[Manifest | None]]:
    """The rows, and the manifest by which each partition was read; None for one that is missing."""
    store = open_store(lake)
    found = list(_find_partitions(store, data, start, end, open))
    absent = [each for each in found if isinstance(each, AbsentPartition)]
    if absent and holes == "raise":
        names = ", ".join(f"{each.partition.key} ({each.reason})" for each in absent[:5])
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise MissingPartition(
            f'{data.key} lacks {names}{more}; export them, or read with holes="mark"',
            missing=[each.partition.key for each in absent],
        )
    rows = _Selection(start, end, None if tickers is None else pa.array(list(tickers), pa.string()))
    frames, segment, after_hole = [_frame(data.schema.empty_table(), 0)], 0, False
    manifests: list[Manifest | None] = []
    for each in found:
        if isinstance(each, AbsentPartition):
            after_hole = True
            manifests.append(None)
            continue
        segment, after_hole = segment + after_hole, False
        content, manifest = _read_consistently(store, each, rows)
        frames.append(_frame(content, segment))
        manifests.append(manifest)
    # Stable: what a data set does not show (the place in a stream) has put the rows of a file in order.
    frame = pl.concat(frames).sort(list(data.order), nulls_last=True, maintain_order=True)
    return frame if holes == "mark" else frame.drop("segment"), manifests


@dataclass(frozen=True)
class _Published:
    """A published partition: the folder that it lies in, and its manifest."""

    partition: Partition
    path: str
    manifest: Manifest


@dataclass(frozen=True)
class _Selection:
    """Which rows are wanted: those of a range of time, of some markets or of all."""

    start: datetime
    end: datetime
    tickers: pa.Array | None

    def filter(self, time_column: str, kind: pa.DataType) -> pc.Expression:
        """The selection as a filter over Parquet, whose time column has this name and type."""
        time = pc.field(time_column)
        rows = (time >= pa.scalar(self.start, kind)) & (time < pa.scalar(self.end, kind))
        return rows if self.tickers is None else pc.field("ticker").isin(self.tickers) & rows


def _find_partitions(
    store: ObjectStore, data: Dataset, start: datetime, end: datetime, open: bool
) -> Iterator[_Published | AbsentPartition]:
    for partition in partitions_between(data, start, end):
        found = find_manifest(store, partition)
        if found is None:
            yield AbsentPartition(partition, "missing")
        elif found[1].state == "open" and not open:
            yield AbsentPartition(partition, "open")
        else:
            yield _Published(partition, *found)


def _read_consistently(store: ObjectStore, found: _Published, rows: _Selection) -> tuple[pa.Table, Manifest]:
    """Rows of a partition, and the manifest they are read by: another one when it is replaced meanwhile."""
    for _ in range(_MAX_REPLACEMENTS):
        try:
            return _read_partition(store, found, rows), found.manifest
        except (LakeCorrupt, LakeUnavailable):
            current = find_manifest(store, found.partition)
            if current is None or current[1] == found.manifest:
                raise
            found = _Published(found.partition, *current)
    raise LakeUnavailable(f"{found.path} is replaced again and again while it is read; read again")


def _read_partition(store: ObjectStore, found: _Published, rows: _Selection) -> pa.Table:
    """Rows of a partition in today's columns, also where an earlier version had fewer or called them otherwise."""
    data, version = found.partition.dataset, found.manifest.schema_version
    names = data.names_in(version)
    if names is None:
        raise LakeCorrupt(
            f"{found.path} has schema version {version}, this reader knows {data.version}; export it again"
        )
    wanted = rows.filter(names[data.time_column] or data.time_column, data.schema.field(data.time_column).type)
    tables = [data.schema.empty_table()]
    for file in found.manifest.files:
        path = f"{found.path}/{file.name}"
        with store.open(path) or io.BytesIO() as stream:
            size = stream.seek(0, io.SEEK_END)
            if size != file.bytes:
                raise LakeCorrupt(f"{path} has {size} bytes; its manifest says {file.bytes}")
            stream.seek(0)
            try:
                tables.append(_with_names_of_today(pq.read_table(stream, filters=wanted), data.schema, names))
            except (pa.ArrowInvalid, ValueError, KeyError) as error:
                raise LakeCorrupt(f"{path} cannot be read: {error}") from error
    return pa.concat_tables(tables)


def _with_names_of_today(content: pa.Table, schema: pa.Schema, names: Mapping[str, str | None]) -> pa.Table:
    columns = []
    for field in schema:
        name = names[field.name]
        values = pa.nulls(content.num_rows, field.type) if name is None else content.column(name)
        columns.append(values.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _frame(table: pa.Table, segment: int) -> pl.DataFrame:
    frame = cast(pl.DataFrame, pl.from_arrow(table))
    return frame.with_columns(segment=pl.lit(segment, pl.Int32))
