"""Reads rows of chosen markets out of the files of one raw partition, by an index of where each market's rows lie.

The index is made from the ticker column alone, which is sorted and stored as runs: it costs a few bytes and
microseconds for each market of a row group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.market.times import us_from_datetime

Ints = npt.NDArray[np.int64]
_TICKER = "ticker"


class _Group:
    """One row group: the tickers that it holds, and the row at which each of them starts."""

    def __init__(self, file: int, number: int, tickers: list[str], starts: Ints) -> None:
        self.file = file
        self.number = number
        self.tickers = tickers
        self.starts = starts
        self.codes: Ints = np.empty(0, np.int64)

    def rows(self, low: int, high: int) -> tuple[int, int]:
        """The places in `codes` of the markets low <= code < high."""
        first, last = np.searchsorted(self.codes, (low, high))
        return int(first), int(last)


class RawRows:
    """The rows of one raw partition, whose files lie on this machine. `columns`: what is read, `ticker` first."""

    def __init__(
        self, data: Dataset, columns: Sequence[str], names: Mapping[str, str | None], files: Sequence[Path]
    ) -> None:
        self._data = data
        self._names = {column: names[column] for column in columns if column != _TICKER}
        texts = [name for column, name in self._names.items() if name and _is_repeated_text(data, column)]
        # read_dictionary: a text of few values costs four bytes a row.
        self._files = [pq.ParquetFile(path, read_dictionary=[_TICKER, *texts], pre_buffer=False) for path in files]
        self._groups = [
            _index(file, number, self._files[file], data)
            for file in range(len(self._files))
            for number in range(self._files[file].metadata.num_row_groups)
        ]

    def tickers(self) -> set[str]:
        """The markets that have rows."""
        return {ticker for group in self._groups for ticker in group.tickers}

    def number(self, codes: Mapping[str, int]) -> None:
        """Give each market its number; they ascend as the tickers do."""
        for group in self._groups:
            group.codes = np.array([codes[ticker] for ticker in group.tickers], np.int64)
            group.tickers = []

    def add_bytes(self, bytes_of: Ints) -> None:
        """Add to each market's number how much memory its rows take, about."""
        for group in self._groups:
            rows = np.diff(group.starts)
            each = self._bytes_of_group(group) / max(int(rows.sum()), 1)
            np.add.at(bytes_of, group.codes, np.ceil(rows * each).astype(np.int64))

    def read(self, low: int, high: int) -> tuple[Ints, pl.DataFrame]:
        """The rows of the markets low <= number < high: the number of each row's market, and the other columns."""
        codes: list[Ints] = [np.empty(0, np.int64)]
        frames: list[pl.DataFrame] = [self._frame(None)]
        for group in self._groups:
            first, last = group.rows(low, high)
            if first < last:
                start, stop = int(group.starts[first]), int(group.starts[last])
                codes.append(np.repeat(group.codes[first:last], np.diff(group.starts[first : last + 1])))
                frames.append(self._frame(self._read_group(group, start, stop)))
        return np.concatenate(codes), pl.concat(frames, rechunk=True)

    def read_between(self, code: int, from_us: int, to_us: int) -> pl.DataFrame:
        """The rows of one market with from_us <= time < to_us, without its ticker."""
        frames: list[pl.DataFrame] = [self._frame(None)]
        for group in self._groups:
            first, last = group.rows(code, code + 1)
            if first < last and self._reaches_into(group, from_us, to_us):
                frame = self._frame(self._read_group(group, int(group.starts[first]), int(group.starts[last])))
                time = frame.get_column(self._data.time_column).to_physical().to_numpy()
                low, high = np.searchsorted(time, (from_us, to_us))
                frames.append(frame[int(low) : int(high)])
        return pl.concat(frames, rechunk=True)

    def cuts(self, code: int, limit_bytes: int) -> list[int]:
        """Moments that cut one market's rows into parts of about `limit_bytes`; only where a row group begins."""
        found: list[int] = []
        kept = 0.0
        for group in self._groups:
            first, last = group.rows(code, code + 1)
            if first == last:
                continue
            low = self._time(group, "min") if len(group.codes) == 1 else None
            if low is not None and kept >= limit_bytes and (not found or low > found[-1]):
                found.append(low)
                kept = 0
            rows = int(group.starts[last] - group.starts[first])
            kept += self._bytes_of_group(group) * rows / max(int(group.starts[-1]), 1)
        return found

    def bytes_of(self, code: int) -> int:
        """About how much memory one market's rows take."""
        counted = np.zeros(code + 1, np.int64)
        for group in self._groups:
            first, last = group.rows(code, code + 1)
            if first < last:
                rows = int(group.starts[last] - group.starts[first])
                counted[code] += int(self._bytes_of_group(group) * rows / max(int(group.starts[-1]), 1))
        return int(counted[code])

    def _bytes_of_group(self, group: _Group) -> float:
        """What the columns of a row group take in memory, from the numbers of values in its metadata."""
        metadata = self._files[group.file].metadata.row_group(group.number)
        wanted = set(self._names.values())
        size = 0.0
        for place in range(metadata.num_columns):
            column = metadata.column(place)
            if column.path_in_schema.split(".")[0] in wanted:
                plain = column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
                size += column.num_values * 8 + (column.total_uncompressed_size if plain else 0)
        return size

    def _read_group(self, group: _Group, start: int, stop: int) -> pa.Table:
        file = self._files[group.file]
        wanted = [name for name in self._names.values() if name is not None]
        rows = file.read_row_group(group.number, columns=wanted, use_threads=False)
        if 2 * (stop - start) > rows.num_rows:
            return rows.slice(start, stop - start)
        # A slice would keep the memory of the whole group.
        return rows.take(pa.array(np.arange(start, stop)))

    def _frame(self, rows: pa.Table | None) -> pl.DataFrame:
        """Rows in today's columns, or none; a column that they have not is null."""
        if rows is None:
            columns = {column: pa.array([], _read_type(self._data, column)) for column in self._names}
            return cast(pl.DataFrame, pl.from_arrow(pa.table(columns)))
        columns = {}
        for column, name in self._names.items():
            kind = _read_type(self._data, column)
            if name is None:
                columns[column] = pa.nulls(rows.num_rows, kind)
                continue
            values = rows.column(name)
            columns[column] = values if pa.types.is_dictionary(values.type) else values.cast(kind)
        return cast(pl.DataFrame, pl.from_arrow(pa.table(columns)))

    def _time(self, group: _Group, which: str) -> int | None:
        metadata = self._files[group.file].metadata.row_group(group.number)
        wanted = self._names[self._data.time_column]
        for place in range(metadata.num_columns):
            column = metadata.column(place)
            if column.path_in_schema == wanted and column.is_stats_set and column.statistics.has_min_max:
                moment: datetime = getattr(column.statistics, which)
                return us_from_datetime(moment)
        return None

    def _reaches_into(self, group: _Group, from_us: int, to_us: int) -> bool:
        low, high = self._time(group, "min"), self._time(group, "max")
        return low is None or high is None or (low < to_us and high >= from_us)


def _is_repeated_text(data: Dataset, column: str) -> bool:
    return pa.types.is_string(data.schema.field(column).type) and column not in data.plain


def _read_type(data: Dataset, column: str) -> pa.DataType:
    kind = data.schema.field(column).type
    return pa.dictionary(pa.int32(), kind) if _is_repeated_text(data, column) else kind


def _index(number_of_file: int, number: int, file: Any, data: Dataset) -> _Group:
    column = file.read_row_group(number, columns=[_TICKER], use_threads=False).column(0)
    column = column.unify_dictionaries().combine_chunks()
    places = column.indices.to_numpy()
    starts = np.flatnonzero(np.r_[True, places[1:] != places[:-1]]) if len(places) else np.empty(0, np.int64)
    tickers = column.dictionary.take(pa.array(places[starts])).to_pylist()
    if any(before >= after for before, after in pairwise(tickers)):
        raise LakeCorrupt(f"{data.key}: a row group is not sorted by ticker; export the hour again")
    return _Group(number_of_file, number, tickers, np.r_[starts, len(places)].astype(np.int64))
