"""Record batches → Parquet files, in bounded memory and byte for byte the same for the same rows.

Row groups hold a fixed number of rows and are written from contiguous memory, so how the reader happened to cut its
batches leaves no trace. Nothing that changes between two exports of the same rows goes into a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.lake.layout import part_name

GROUPS_PER_FILE = 32
_ZSTD_LEVEL = 3
_DELTAS = "DELTA_BINARY_PACKED"
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class PartFile:
    """One written data file; the first and last ticker are None where it has no rows, or no tickers."""

    path: Path
    bytes: int
    sha256: str
    rows: int
    ticker_min: str | None = None
    ticker_max: str | None = None


@dataclass(frozen=True)
class Parts:
    """The data files of a partition; always at least one, so that a glob over it finds columns and types."""

    files: tuple[PartFile, ...]
    time_min: datetime | None
    time_max: datetime | None

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(file.rows for file in self.files)


def write_parts(
    batches: Iterable[pa.RecordBatch],
    data: Dataset,
    folder: Path,
    *,
    about: Mapping[str, str] = _NOTHING,
    groups_per_file: int = GROUPS_PER_FILE,
) -> Parts:
    """Write `batches` (in the schema and order of `data`) as part files into `folder`.

    `about` goes into the metadata of each file, beside what the schema says of the data set. One row group is held in
    memory at a time.
    """
    schema = data.schema.with_metadata({**data.schema.metadata, **about})
    files: list[PartFile] = []
    times = _TimeSpan()
    part: _Part | None = None
    for group in regroup(batches, data.schema, data.rows_per_group):
        times.add(group.column(data.time_column))
        if part is not None and part.groups == groups_per_file:
            files.append(part.close())
            part = None
        if part is None:
            part = _Part(folder, len(files), data, schema)
        part.write(group)
    files.append((part or _Part(folder, 0, data, schema)).close())
    return Parts(tuple(files), times.low, times.high)


def regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """Cut a stream of batches anew into contiguous ones of exactly `rows` rows (the last one may be shorter)."""
    kept: list[pa.RecordBatch] = []
    missing = rows
    for arrived in batches:
        batch = arrived
        while batch.num_rows >= missing:
            kept.append(batch.slice(0, missing))
            batch = batch.slice(missing)
            yield _contiguous(kept, schema)
            kept, missing = [], rows
        if batch.num_rows:
            kept.append(batch)
            missing -= batch.num_rows
    if kept:
        yield _contiguous(kept, schema)


def writer_options(data: Dataset) -> dict[str, Any]:
    """The encodings of a data set, as docs/lake.md shows them to be smallest.

    Times and what grows as they do are written as deltas; a dictionary serves everything that repeats, numbers too.
    """
    dictionary: list[str] = []
    encodings: dict[str, str] = {}
    for field in data.schema:
        path, kind = field.name, field.type
        if pa.types.is_list(kind):
            path, kind = f"{field.name}.list.element", kind.value_type
        if pa.types.is_timestamp(kind) or field.name in data.growing:
            encodings[path] = _DELTAS
        # Flags are single bits already.
        elif not pa.types.is_boolean(kind) and field.name not in data.plain:
            dictionary.append(path)
    return {
        "version": "2.6",
        "compression": "zstd",
        "compression_level": _ZSTD_LEVEL,
        "use_dictionary": dictionary,
        "column_encoding": encodings,
        "store_decimal_as_integer": True,
        "write_page_index": True,
        "sorting_columns": pq.SortingColumn.from_ordering(data.schema, [(name, "ascending") for name in data.order]),
    }


class _Part:
    """One file being written; hashes what it writes, and is named after that at the end."""

    def __init__(self, folder: Path, number: int, data: Dataset, schema: pa.Schema) -> None:
        self._number = number
        self._path = folder / f"part-{number:04d}.unfinished"
        self._sink = _HashingSink(self._path.open("wb"))
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), schema, **writer_options(data))
        self._tickers = _TickerSpan()
        self.rows = 0
        self.groups = 0

    def write(self, group: pa.RecordBatch) -> None:
        self._writer.write_table(pa.Table.from_batches([group]), row_group_size=max(group.num_rows, 1))
        self._tickers.add(group)
        self.rows += group.num_rows
        self.groups += 1

    def close(self) -> PartFile:
        self._writer.close()
        self._sink.close()
        digest = self._sink.sha256.hexdigest()
        path = self._path.rename(self._path.with_name(part_name(self._number, digest)))
        return PartFile(path, self._sink.bytes, digest, self.rows, self._tickers.low, self._tickers.high)


class _HashingSink:
    """A writable file that counts and hashes; what `pyarrow.PythonFile` needs and no more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed


class _TickerSpan:
    """The first and the last ticker seen, by their bytes."""

    def __init__(self) -> None:
        self.low: str | None = None
        self.high: str | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in the tickers of a batch; of one without such a column nothing."""
        if "ticker" not in batch.schema.names:
            return
        span = pc.min_max(batch.column("ticker")).as_py()
        if span["min"] is not None:
            self.low = span["min"] if self.low is None else min(self.low, span["min"], key=str.encode)
            self.high = span["max"] if self.high is None else max(self.high, span["max"], key=str.encode)


class _TimeSpan:
    """The smallest and largest time seen."""

    def __init__(self) -> None:
        self.low: datetime | None = None
        self.high: datetime | None = None

    def add(self, column: pa.Array) -> None:
        span = pc.min_max(column).as_py()
        low, high = span["min"], span["max"]
        if low is not None:
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)


def _contiguous(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    return pa.Table.from_batches(batches, schema).combine_chunks().to_batches()[0]


def to_schema(batch: pa.RecordBatch, data: Dataset) -> pa.RecordBatch:
    """Return `batch` in the schema of `data`, columns matched by position.

    A decimal column, or a list of decimals, is made from integers of the smallest unit (`5600` in 1/10,000 dollar →
    `0.5600`).
    Raises pyarrow.ArrowInvalid when a value does not fit its column.
    """
    arrays = [_column(batch.column(index), field.type) for index, field in enumerate(data.schema)]
    return pa.RecordBatch.from_arrays(arrays, schema=data.schema)


def decimals(units: pa.Array, kind: pa.Decimal128Type) -> pa.Array:
    """Integers of the smallest unit of `kind` → decimals."""
    # A decimal is an integer and a scale: the scale is put on without touching the digits.
    whole = units.cast(pa.int64()).cast(pa.decimal128(19, 0))
    scaled = pa.Array.from_buffers(kind, len(whole), whole.buffers(), offset=whole.offset)
    scaled.validate(full=True)
    return scaled


def _column(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(kind):
        return decimals(column, kind)
    if pa.types.is_list(kind) and pa.types.is_decimal(kind.value_type):
        lists = column.cast(pa.list_(pa.int64()))
        # Not .values: what the offsets leave out is not to be looked at.
        offsets = pa.compute.subtract(lists.offsets, lists.offsets[0])
        return pa.ListArray.from_arrays(offsets, decimals(lists.flatten(), kind.value_type), kind, mask=lists.is_null())
    return column if column.type.equals(kind) else column.cast(kind)
