"""Makes processed/book_1s and book_1m: the ten best levels at the ends of periods, where they changed. Pure."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from kalshi_platform.lake.builders.book_deltas import enum
from kalshi_platform.lake.builders.book_fold import (
    BookFold,
    Bools,
    Folded,
    Ints,
    Spans,
    moments,
    split_moments,
)
from kalshi_platform.lake.builders.book_inputs import DELTAS
from kalshi_platform.lake.builders.builder import HourRows
from kalshi_platform.lake.builders.top_levels import DEPTH, Tops, top_levels

_TIME = pl.Datetime("us", "UTC")
_MOST_PRICE_E4 = 10_000
_NOT_YET, _SHOWN, _IN_HOLE = range(3)


class BookPeriods:
    """The rows of a data set of books at the ends of periods, inclusive: at E, all changes with exchange_ts <= E."""

    def __init__(self, period_us: int) -> None:
        self._period_us = period_us
        self._fold = BookFold()
        self._state = np.empty(0, np.int8)
        self._is_pending = np.empty(0, np.bool_)
        self._last = Tops(*(np.empty((0, DEPTH), np.int64) for _ in range(4)))

    def add(self, hour: HourRows) -> pl.DataFrame:
        """Return the rows whose periods end in these hours."""
        folded = self._fold.add(hour)
        if folded is None:
            return pl.DataFrame()
        if folded.is_first:
            lines = len(folded.known_before)
            self._state = np.zeros(lines, np.int8)
            # The day begins with a row of each book.
            self._is_pending = np.ones(lines, np.bool_)
            self._last = Tops(*(np.zeros((lines, DEPTH), np.int64) for _ in range(4)))
        return self._add(folded, hour.rows[DELTAS].schema["ticker"])

    def finish(self) -> pl.DataFrame:
        """Return nothing: what changed after the last end of a period is the first row of the next day."""
        return pl.DataFrame()

    def _add(self, folded: Folded, markets: pl.DataType) -> pl.DataFrame:
        line, time_us = self._ends(folded)
        is_known = _holds(folded.known, line, time_us)
        tops = top_levels(folded.levels, folded.rows, line[is_known], time_us[is_known])
        number = np.cumsum(is_known) - 1

        # A row is given where a book is shown that was not, or another one, or none any more.
        is_first = np.r_[True, line[1:] != line[:-1]] if len(line) else np.empty(0, np.bool_)
        before = np.where(is_first, self._state[line], np.where(np.r_[False, is_known[:-1]], _SHOWN, _IN_HOLE))
        # Of an unknown book that was never shown nothing is said.
        never = self._never_shown(line, is_known, is_first)
        differs = np.zeros(len(line), np.bool_)
        shown_before = is_known & (before == _SHOWN)
        for column, last in zip(tops, self._last, strict=True):
            earlier = np.where(
                is_first[shown_before, None], last[line[shown_before]], column[np.maximum(number[shown_before] - 1, 0)]
            )
            differs[shown_before] |= (column[number[shown_before]] != earlier).any(axis=1)
        given = (is_known & (before != _SHOWN)) | differs | (~is_known & (before == _SHOWN) & ~never)
        frame = _frame(line, time_us + folded.start_us, given, is_known, number, tops, markets)

        if len(line):
            ends = np.flatnonzero(np.r_[is_first[1:], True])
            self._state[line[ends]] = np.where(is_known[ends], _SHOWN, np.where(never[ends], _NOT_YET, _IN_HOLE))
            shown = ends[is_known[ends]]
            for column, last in zip(tops, self._last, strict=True):
                last[line[shown]] = column[number[shown]]
        return frame

    def _never_shown(self, line: Ints, is_known: Bools, is_first: Bools) -> Bools:
        """Whether a line's book was not shown in the day before each of these moments."""
        shown = np.cumsum(is_known)
        starts = np.flatnonzero(is_first)
        in_line: Ints = shown - np.repeat((shown - is_known)[starts], np.diff(np.r_[starts, len(line)]))
        never: Bools = (self._state[line] == _NOT_YET) & (in_line == 0)
        return never

    def _ends(self, folded: Folded) -> tuple[Ints, Ints]:
        """The ends of periods at which a book may be another one than before, by line and time."""
        rows, known, period = folded.rows, folded.known, self._period_us
        line = np.r_[rows.line, known.line, known.line]
        time = np.r_[rows.time_us, known.from_us, known.to_us] + folded.start_us
        end = -(-time // period) * period - folded.start_us
        first = -(-folded.start_us // period) * period - folded.start_us
        pending = np.flatnonzero(self._is_pending)
        line, end = np.r_[line, pending], np.r_[end, np.full(len(pending), first)]
        later = end >= folded.length_us
        self._is_pending = np.zeros(len(self._state), np.bool_)
        self._is_pending[line[later]] = True
        return split_moments(np.unique(moments(line[~later], end[~later])))


def _holds(known: Spans, line: Ints, time_us: Ints) -> Bools:
    """Whether books are known at some moments."""
    if not len(known.line):
        return np.zeros(len(line), np.bool_)
    span = np.searchsorted(moments(known.line, known.from_us), moments(line, time_us), side="right") - 1
    found: Bools = (span >= 0) & (known.line[span] == line) & (known.to_us[span] > time_us)
    return found


def _frame(
    line: Ints, time_us: Ints, given: Bools, is_known: Bools, number: Ints, tops: Tops, markets: pl.DataType
) -> pl.DataFrame:
    rows = np.where(is_known, number, -1)[given]
    return pl.DataFrame(
        {
            "ticker": enum(line[given], markets),
            "ts": pl.Series(time_us[given]).cast(_TIME),
            "bid_dollars": _lists(tops.yes_e4, tops.yes_e4, rows, pa.int32()),
            "bid_contracts": _lists(tops.yes_e4, tops.yes_e2, rows, pa.int64()),
            "ask_dollars": _lists(tops.no_e4, _MOST_PRICE_E4 - tops.no_e4, rows, pa.int32()),
            "ask_contracts": _lists(tops.no_e4, tops.no_e2, rows, pa.int64()),
        }
    )


def _lists(price_e4: Ints, values: Ints, rows: Ints, kind: pa.DataType) -> pl.Series:
    """The values of some rows as lists as long as there are prices; null for the row -1."""
    known = rows[rows >= 0]
    is_there = price_e4[known] >= 0
    lengths = np.zeros(len(rows), np.int64)
    lengths[rows >= 0] = is_there.sum(axis=1)
    offsets = pa.array(np.r_[0, np.cumsum(lengths)], pa.int64())
    found = pa.array(values[known][is_there], kind)
    lists = pa.LargeListArray.from_arrays(offsets, found, mask=pa.array(rows < 0))
    return pl.Series(pl.from_arrow(lists))
