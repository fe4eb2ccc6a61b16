"""Deltas of many markets in the order of time, in bounded memory.

An hour lies in the lake sorted by market. Its rows are read once, as numbers; an hour with more of them than fit into
memory is cut into spans of time on the way, in temporary files, and each span is sorted by itself.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalshi_platform.errors import LakeCorrupt, LakeUnavailable
from kalshi_platform.lake.manifest import find_manifest
from kalshi_platform.lake.reader.coverage import DELTAS
from kalshi_platform.lake.reader.source import AbsentPartition, Hot, Published, Selection, Source, hot_batches, names_of
from kalshi_platform.market.times import us_from_datetime

ROWS_IN_MEMORY = 1_000_000
"""Rows sorted at once, of 23 bytes; sorting takes about as much again."""
_BATCH_ROWS = 128 * 1024
_COLUMNS = ("ticker", "exchange_ts", "side", "price_e4", "delta_e2")
_ROW = np.dtype([("ts_us", "<i8"), ("delta_e2", "<i8"), ("key", "<u4"), ("price_e4", "<i2")])
Rows: TypeAlias = npt.NDArray[np.void]


class Window(NamedTuple):
    """Deltas with low_us <= ts_us < high_us in the order of time; those of one moment and market stand together.

    `rows`: ts_us, delta_e2, price_e4, and `key`, twice the number of the market, plus 1 for the side no.
    """

    low_us: int
    high_us: int
    rows: Rows


class MarketNumbers:
    """Numbers of markets, given as they come; of those that are not wanted there is none."""

    def __init__(self, wanted: Sequence[str] | None) -> None:
        self.tickers: list[str] = []
        self._numbers: dict[str, int] = {}
        self._wanted = None if wanted is None else frozenset(wanted)

    def number(self, ticker: str) -> int:
        """The number of a market; -1 where it is not wanted."""
        found = self._numbers.get(ticker)
        if found is None:
            if self._wanted is not None and ticker not in self._wanted:
                return -1
            found = self._numbers[ticker] = len(self.tickers)
            self.tickers.append(ticker)
        return found


def read_windows(
    source: Source,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None,
    numbers: MarketNumbers,
    *,
    rows_in_memory: int = ROWS_IN_MEMORY,
) -> Iterator[Window]:
    """Yield the deltas of [start, end) in windows, ascending and without a gap; an hour that is not there is empty."""
    wanted = Selection(start, end, None if tickers is None else tuple(tickers), _COLUMNS)
    for found in list(source.find(DELTAS, start, end)):
        low = us_from_datetime(max(found.partition.start, start))
        high = us_from_datetime(min(found.partition.end, end))
        if isinstance(found, AbsentPartition):
            yield Window(low, high, np.empty(0, _ROW))
            continue
        with tempfile.TemporaryDirectory(prefix="kalshi-replay-") as folder:
            spans = _read_hour(source, found, wanted, numbers, _Spans(low, high, rows_in_memory, Path(folder)))
            yield from spans.windows()


class _Spans:
    """Rows of [low_us, high_us): in memory, or, from `limit` rows on, in one file for each of some spans of time."""

    def __init__(self, low_us: int, high_us: int, limit: int, folder: Path) -> None:
        self._low_us = low_us
        self._high_us = high_us
        self._limit = limit
        self._folder = folder
        self._kept: list[Rows] = []
        self._counts: list[int] = []
        self._kept_rows = 0
        self._width_us = 0

    def clear(self) -> None:
        """Forget all rows."""
        for number in range(len(self._counts)):
            self._file(number).unlink(missing_ok=True)
        self._kept, self._counts, self._kept_rows = [], [], 0

    def expect(self, rows: int) -> None:
        """Prepare for that many rows, before the first comes."""
        if rows > self._limit:
            # Twice as many as needed: not all moments are equally busy.
            spans = 2 * -(-rows // self._limit)
            self._width_us = -(-(self._high_us - self._low_us) // spans)
            self._counts = [0] * spans

    def add(self, rows: Rows) -> None:
        """Take rows, in any order of time; the order of those that come at one moment is kept."""
        if not self._counts:
            self._kept.append(rows)
            self._kept_rows += len(rows)
            if self._kept_rows > 2 * self._limit:
                kept, self._kept, self._kept_rows = self._kept, [], 0
                self.expect(8 * self._limit)
                for each in kept:
                    self.add(each)
            return
        span = ((rows["ts_us"] - self._low_us) // self._width_us).astype(np.uint16)
        ordered = rows[np.argsort(span, kind="stable")]
        ends = np.cumsum(np.bincount(span, minlength=len(self._counts)))
        for number, (low, high) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
            if low < high:
                with self._file(number).open("ab") as file:
                    ordered[low:high].tofile(file)
                self._counts[number] += high - low

    def windows(self) -> Iterator[Window]:
        """Yield all rows in the order of time."""
        if not self._counts:
            rows = np.concatenate([np.empty(0, _ROW), *self._kept])
            self._kept = []
            yield Window(self._low_us, self._high_us, _in_order(rows))
            return
        for number, count in enumerate(self._counts):
            low = self._low_us + number * self._width_us
            high = min(low + self._width_us, self._high_us)
            if low >= high:
                continue
            path = self._file(number)
            if count > 2 * self._limit and high - low > 1:
                yield from self._split(path, number, low, high, count)
            else:
                rows = np.fromfile(path, _ROW) if count else np.empty(0, _ROW)
                yield Window(low, high, _in_order(rows))
            path.unlink(missing_ok=True)

    def _split(self, path: Path, number: int, low: int, high: int, count: int) -> Iterator[Window]:
        """Cut a span that was busier than others once more."""
        folder = self._folder / f"{number}-again"
        folder.mkdir()
        inner = _Spans(low, high, self._limit, folder)
        inner.expect(count)
        with path.open("rb") as file:
            while len(rows := np.fromfile(file, _ROW, _BATCH_ROWS)):
                inner.add(rows)
        yield from inner.windows()

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:05d}"


def _in_order(rows: Rows) -> Rows:
    times = rows["ts_us"]
    if len(times) < 2 or bool(np.all(times[1:] >= times[:-1])):
        return rows
    # Offsets of an hour fit into 32 bits, of which a stable sort of integers makes short work.
    order = np.argsort((times - times.min()).astype(np.uint32) if np.ptp(times) < 2**32 else times, kind="stable")
    return rows[order]


def _read_hour(
    source: Source, found: Published | Hot, rows: Selection, numbers: MarketNumbers, spans: _Spans
) -> _Spans:
    """Read the rows of an hour whole; from the start again where the hour is replaced meanwhile."""
    for _ in range(5):
        spans.clear()
        try:
            if isinstance(found, Published):
                spans.expect(found.manifest.rows if rows.tickers is None else 0)
            for batch in _batches(source, found, rows):
                spans.add(_to_rows(batch, rows, numbers))
        except (LakeCorrupt, LakeUnavailable):
            current = find_manifest(source.store, found.partition)
            if current is None or (isinstance(found, Published) and current[1] == found.manifest):
                raise
            found = Published(found.partition, *current)
            continue
        current = find_manifest(source.store, found.partition) if isinstance(found, Hot) else None
        if current is None or current[1].state != "closed":
            return spans
        found = Published(found.partition, *current)
    raise LakeUnavailable(f"{found.partition.path} is replaced again and again while it is read; read again")


def _batches(source: Source, found: Published | Hot, rows: Selection) -> Iterator[pa.RecordBatch]:
    if isinstance(found, Hot):
        yield from hot_batches(source.production(), found.partition, rows)
        return
    names = names_of(found)
    stored = [names[column] or column for column in _COLUMNS]
    for file in found.manifest.files:
        if not rows.may_be_in(file.ticker_min, file.ticker_max):
            continue
        path = f"{found.path}/{file.name}"
        with source.store.open(path) or io.BytesIO() as stream:
            size = stream.seek(0, io.SEEK_END)
            if size != file.bytes:
                raise LakeCorrupt(f"{path} has {size} bytes; its manifest says {file.bytes}")
            stream.seek(0)
            try:
                parquet = pq.ParquetFile(stream, read_dictionary=[stored[0], stored[2]])
                groups = _groups_of(parquet, stored[0], rows)
                for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=groups, columns=stored, use_threads=False):
                    yield batch.select(stored).rename_columns(list(_COLUMNS))
            except (pa.ArrowInvalid, ValueError, KeyError) as error:
                raise LakeCorrupt(f"{path} cannot be read: {error}") from error


def _groups_of(parquet: pq.ParquetFile, ticker: str, rows: Selection) -> list[int]:
    """The row groups that may hold a wanted market."""
    groups = range(parquet.metadata.num_row_groups)
    if rows.tickers is None:
        return list(groups)
    place = parquet.schema_arrow.get_field_index(ticker)
    found = []
    for number in groups:
        column = parquet.metadata.row_group(number).column(place).statistics
        if column is None or not column.has_min_max or rows.may_be_in(column.min, column.max):
            found.append(number)
    return found


def _to_rows(batch: pa.RecordBatch, wanted: Selection, numbers: MarketNumbers) -> Rows:
    tickers, sides = (_dictionary(batch.column(name)) for name in ("ticker", "side"))
    number = np.array([numbers.number(ticker) for ticker in tickers.dictionary.to_pylist()] or [0], np.int64)
    is_no = np.array([side == "no" for side in sides.dictionary.to_pylist()] or [False], np.int64)
    time = batch.column("exchange_ts").cast(pa.timestamp("us", "UTC")).view(pa.int64()).to_numpy()
    market = number[tickers.indices.to_numpy()]
    rows = np.empty(len(time), _ROW)
    rows["ts_us"] = time
    rows["delta_e2"] = pc.cast(batch.column("delta_e2"), pa.int64()).to_numpy()
    rows["key"] = 2 * np.maximum(market, 0) + is_no[sides.indices.to_numpy()]
    rows["price_e4"] = batch.column("price_e4").to_numpy()
    low, high = us_from_datetime(wanted.start), us_from_datetime(wanted.end)
    keep = (market >= 0) & (time >= low) & (time < high)
    return rows if keep.all() else rows[keep]


def _dictionary(column: pa.Array) -> pa.DictionaryArray:
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
