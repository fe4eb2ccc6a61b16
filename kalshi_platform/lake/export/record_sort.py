"""Put more records in order than memory holds: stretches of the order go into files, which are then sorted one by one.

A stretch is some neighbouring markets, or a part of a busy one's time, so that memory does not grow with the partition
nor with its biggest market. A record is moved as a whole, and its texts are numbers until the end: both make it several
times as fast as `external_sort`, which takes any columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.storage.fixed_rows import Records

ROWS_PER_STRETCH = 64 * 1024
_MOST_STRETCHES = 512
# Rows of a market do not come evenly, so that it is cut into more parts than its rows would fill.
_UNEVENNESS = 2
_WRITE_BYTES = 32 * 1024

Ints = npt.NDArray[np.int64]
TextsAt = Callable[[str, Sequence[int]], Mapping[int, str]]
"""A column's name and some times (µs) → the column's texts at these times by their hash."""


class CountedTicker(NamedTuple):
    """A market of a partition, the hash of its ticker, and how many rows it has."""

    ticker: str
    hash: int
    rows: int


def can_sort(data: Dataset) -> bool:
    """Whether the order of a data set begins with market and time, which stretches are cut by."""
    return data.order[:2] == ("ticker", data.time_column)


def sort_records(
    blocks: Iterable[Records],
    data: Dataset,
    span_us: tuple[int, int],
    counted: Sequence[CountedTicker],
    texts_at: TextsAt,
    folder: Path,
    *,
    rows_per_stretch: int = ROWS_PER_STRETCH,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `blocks` (records of `storage.fixed_rows`) in the schema and order of `data`.

    `span_us`: all times lie within [low, high). `counted` must name every market that comes, with its rows. Texts sort
    by their bytes. Raises LakeCorrupt for a row that was not counted.
    """
    columns = {column.name: column for column in data.columns}
    texts = {name: _Texts(name, texts_at) for name, column in columns.items() if column.type == "text"}
    ordered = sorted(counted, key=lambda each: each.ticker.encode())
    texts["ticker"].learn({each.hash: each.ticker for each in ordered}, is_all=True)
    stretches = _Stretches(np.array([each.rows for each in ordered], np.int64), span_us, rows_per_stretch)
    paths = [folder / f"stretch-{number}.records" for number in range(stretches.count)]
    coded = np.dtype(
        [(name, "=i4" if name in texts else _NATIVE[column.type]) for name, column in columns.items()], align=True
    )
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb", buffering=_WRITE_BYTES)) for path in paths]
        for block in blocks:
            records = np.empty(len(block), coded)
            for name in columns:
                times = block[data.time_column]
                records[name] = texts[name].codes(block[name], times) if name in texts else block[name]
            for number, part in stretches.split(records, data.time_column):
                files[number].write(part.view(np.uint8).data)
    for path in paths:
        records = np.fromfile(path, coded)
        path.unlink()
        yield _batch(_sorted(records, data, texts), data, texts)


_NATIVE = {"bigint": "=i8", "integer": "=i4", "timestamptz": "=i8", "boolean": "?", "double precision": "=f8"}


class _Texts:
    """The texts of one column, numbered as they come."""

    def __init__(self, name: str, texts_at: TextsAt) -> None:
        self._name = name
        self._texts_at = texts_at
        self._texts: list[str] = []
        self._hashes: list[int] = []
        self._known = pa.array([], pa.int64())
        self._is_all = False

    def learn(self, texts: Mapping[int, str], *, is_all: bool = False) -> None:
        """Number further texts by their hashes; `is_all`: there can be no others."""
        known = set(self._hashes)
        new = {key: text for key, text in texts.items() if key not in known}
        self._hashes += new.keys()
        self._texts += new.values()
        self._known = pa.array(self._hashes, pa.int64())
        self._is_all = is_all

    def codes(self, hashes: Ints, times: Ints) -> npt.NDArray[np.int32]:
        """The numbers of texts by their hashes; `times` are those of the rows, to look unknown ones up at."""
        found = self._find(hashes)
        if found.null_count and not self._is_all:
            unknown = np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))
            _, first = np.unique(hashes[unknown], return_index=True)
            self.learn(self._texts_at(self._name, times[unknown[first]].tolist()))
            found = self._find(hashes)
        if found.null_count:
            raise LakeCorrupt(f"rows came whose {self._name} is not known in the same snapshot")
        codes: npt.NDArray[np.int32] = found.to_numpy()
        return codes

    def ranks(self) -> npt.NDArray[np.int32]:
        """The place of each number in the order of the texts' bytes."""
        order = sorted(range(len(self._texts)), key=lambda number: self._texts[number].encode())
        ranks = np.empty(len(order), np.int32)
        ranks[order] = np.arange(len(order), dtype=np.int32)
        return ranks

    def column(self, codes: npt.NDArray[np.int32]) -> pa.Array:
        """Numbers as texts."""
        return pa.array(self._texts, pa.string()).take(pa.array(codes))

    def _find(self, hashes: Ints) -> pa.Array:
        return pc.index_in(pa.array(np.ascontiguousarray(hashes)), value_set=self._known)


class _Stretches:
    """Which stretch of the order a row lies in: some neighbouring markets, or a part of one market's time."""

    def __init__(self, rows: Ints, span_us: tuple[int, int], rows_per_stretch: int) -> None:
        at_most = max(rows_per_stretch, int(rows.sum()) * 2 // _MOST_STRETCHES)
        self._low_us, high_us = span_us
        self._span_us = high_us - self._low_us
        self._parts = np.where(rows > at_most, -(-rows * _UNEVENNESS // at_most), 1)
        self._first = np.zeros(len(rows), np.int64)
        number, filled = -1, at_most
        for market, (count, parts) in enumerate(zip(rows.tolist(), self._parts.tolist(), strict=True)):
            if filled + count > at_most:
                number, filled = number + 1, 0
            self._first[market] = number
            filled += count
            number += parts - 1
            filled = at_most if parts > 1 else filled
        self.count = number + 1

    def split(self, records: Records, time_column: str) -> Iterator[tuple[int, Records]]:
        """Yield the rows of each stretch."""
        market = records["ticker"]
        since_us = records[time_column] - self._low_us
        if len(records) and not 0 <= int(since_us.min()) <= int(since_us.max()) < self._span_us:
            raise LakeCorrupt("a row came whose time lies outside of its partition")
        number = (self._first[market] + since_us * self._parts[market] // self._span_us).astype(np.uint16)
        together = np.take(records, np.argsort(number, kind="stable"))
        counts = np.bincount(number, minlength=self.count)
        start = 0
        for found in np.flatnonzero(counts).tolist():
            end = start + int(counts[found])
            yield found, together[start:end]
            start = end


def _sorted(records: Records, data: Dataset, texts: Mapping[str, _Texts]) -> Records:
    """Sort records by market and time, and those of one moment by the rest of the order."""
    if not len(records):
        return records
    # `take` moves whole records; indexing by an array would take them apart, ten times as slow.
    # Of one stretch market and time fit into one number; `ticker` is a rank already.
    time = records[data.time_column]
    span = int(time.max()) - int(time.min()) + 1
    key = (records["ticker"] - records["ticker"].min()).astype(np.int64) * span + (time - time.min())
    order = np.argsort(key, kind="stable")
    key = key[order]
    is_tied = np.zeros(len(key), bool)
    is_tied[1:] = key[1:] == key[:-1]
    is_tied[:-1] |= is_tied[1:]
    tied = np.flatnonzero(is_tied)
    if len(tied):
        rows = order[tied]
        keys = [
            texts[name].ranks()[records[name][rows]] if name in texts else records[name][rows]
            for name in reversed(data.order[2:])
        ]
        order[tied] = rows[np.lexsort([*keys, key[tied]])]
    return np.take(records, order)


def _batch(records: Records, data: Dataset, texts: Mapping[str, _Texts]) -> pa.RecordBatch:
    arrays = []
    for field in data.schema:
        values = np.ascontiguousarray(records[field.name])
        if field.name in texts:
            arrays.append(texts[field.name].column(values))
        else:
            arrays.append(pa.array(values).cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=data.schema)
