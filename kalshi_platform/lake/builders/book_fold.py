"""Folds the books of many markets piece by piece: every change of a level, and when the books are known. Pure.

A book is known from a checkpoint on while coverage reaches on without a hole, as `book_basis` of production has it.
Arrays: a *line* is a market of the builder by its number, `side` is 0 for no and 1 for yes (the order of texts), times
are microseconds from the start of the piece that is folded. A place of a book and a moment of a line are packed into
one integer each, so that numpy sorts and finds them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from kalshi_platform.lake.builders.book_inputs import CHECKPOINTS, COVERAGE, DELTAS
from kalshi_platform.lake.builders.builder import HourRows

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
CHANGE, OPEN, RESYNC = range(3)
"""Places of `book_inputs.EVENTS`."""
_PRICE_BITS = 14
_PLACE_BITS = _PRICE_BITS + 1
_TIME_BITS = 33
_NO_INTS: Ints = np.empty(0, np.int64)


class Levels(NamedTuple):
    """Levels of books: `place` ascending and distinct, see `places`; `size_e2` is never 0."""

    place: Ints
    size_e2: Ints

    @property
    def line(self) -> Ints:
        """The market of each level."""
        return self.place >> _PLACE_BITS


class Rows(NamedTuple):
    """Changes of levels, by line and time; those of one moment apply together."""

    line: Ints
    time_us: Ints
    event: Ints
    side: Ints
    price_e4: Ints
    delta_e2: Ints


class Spans(NamedTuple):
    """Ranges from_us <= time < to_us of lines, ascending, neither overlapping nor touching."""

    line: Ints
    from_us: Ints
    to_us: Ints


class Folded(NamedTuple):
    """One piece of time: the books before its first row, its rows, and when books are known in it.

    `known_before`: by line, whether the book was known in the last moment before the piece. In the first piece of a
    day, books are empty before it, and rows of the event `open` make them what they were.
    """

    start_us: int
    length_us: int
    is_first: bool
    levels: Levels
    rows: Rows
    known: Spans
    known_before: Bools


def places(line: Ints, side: Ints, price_e4: Ints) -> Ints:
    """One integer for each place of a book, ascending by line, side and price."""
    return (line << _PLACE_BITS) | (side << _PRICE_BITS) | price_e4


def split_places(place: Ints) -> tuple[Ints, Ints, Ints]:
    """The line, side and price of places."""
    return place >> _PLACE_BITS, (place >> _PRICE_BITS) & 1, place & ((1 << _PRICE_BITS) - 1)


def moments(line: Ints, time_us: Ints) -> Ints:
    """One integer for each moment of a line, ascending by line and time; times from -1 µs to two hours."""
    return (line << _TIME_BITS) | (time_us + 1)


def split_moments(moment: Ints) -> tuple[Ints, Ints]:
    """The line and time of moments."""
    return moment >> _TIME_BITS, (moment & ((1 << _TIME_BITS) - 1)) - 1


def sum_places(place: Ints, size_e2: Ints) -> Levels:
    """Sum sizes and changes by place; what comes to nothing is left out."""
    if not len(place):
        return Levels(_NO_INTS, _NO_INTS)
    order = np.argsort(place, kind="stable")
    place = place[order]
    first = np.flatnonzero(np.r_[True, place[1:] != place[:-1]])
    sums = np.add.reduceat(size_e2[order], first)
    kept = sums != 0
    return Levels(place[first][kept], sums[kept])


class BookFold:
    """The books of the markets of one builder, through the pieces of a day and the hour before it."""

    def __init__(self) -> None:
        self._levels = Levels(_NO_INTS, _NO_INTS)
        self._lines = 0
        self._is_begun = False
        # By line: whether a checkpoint came at all, whether the day's book is open, whether the book is known at the
        # end of the last piece, and up to when (µs since the epoch) coverage reaches on from there.
        self._has_book = self._is_open = self._is_known = np.empty(0, np.bool_)
        self._covered_to = _NO_INTS

    def add(self, hour: HourRows) -> Folded | None:
        """Fold the next piece; None for one that lies before the day."""
        if not self._lines:
            self._lines = _number_of_lines(hour)
            self._has_book, self._is_open, self._is_known = (np.zeros(self._lines, np.bool_) for _ in range(3))
            self._covered_to = np.zeros(self._lines, np.int64)
        length_us = hour.end_us - hour.start_us
        is_first = hour.in_day and not self._is_begun
        opened = self._open_day() if is_first else Levels(_NO_INTS, _NO_INTS)
        line, time_us, checkpoints = _checkpoints(hour)
        known_before = self._is_known
        known = self._find_known(_coverage(hour), line, time_us, hour.start_us, length_us)
        before = self._levels
        rows = self._fold(_deltas(hour), opened, line, time_us, checkpoints)
        if not hour.in_day:
            return None
        return Folded(hour.start_us, length_us, is_first, before, rows, known, known_before)

    def _open_day(self) -> Levels:
        """The levels that the day opens with; the books before them are empty."""
        self._is_begun = True
        self._is_open = self._has_book.copy()
        opened = Levels(*(column[self._has_book[self._levels.line]] for column in self._levels))
        self._levels = Levels(_NO_INTS, _NO_INTS)
        return opened

    def _find_known(self, covered: Spans, line: Ints, time_us: Ints, start_us: int, length_us: int) -> Spans:
        """When books are known in the piece: from each checkpoint on, and from its start on, while coverage reaches."""
        carried = np.flatnonzero(self._covered_to >= start_us)
        spans = _join(
            np.r_[carried, covered.line],
            np.r_[np.zeros(len(carried), np.int64), covered.from_us],
            np.r_[self._covered_to[carried] - start_us, covered.to_us],
        )
        reaching = spans.to_us >= length_us
        self._covered_to = np.zeros(self._lines, np.int64)
        self._covered_to[spans.line[reaching]] = spans.to_us[reaching] + start_us

        known_lines = np.flatnonzero(self._is_known)
        # A book that was known before counts as a checkpoint in the last moment before the piece.
        line, time_us = np.r_[known_lines, line], np.r_[np.full(len(known_lines), -1, np.int64), time_us]
        found = np.searchsorted(moments(spans.line, spans.from_us), moments(line, time_us + 1), side="right") - 1
        to_us = time_us + 1
        if len(spans.line):
            reaches = (found >= 0) & (spans.line[found] == line) & (spans.to_us[found] > to_us)
            to_us = np.where(reaches, spans.to_us[found], to_us)
        known = _join(line, time_us, to_us)
        ends_known = known.to_us >= length_us
        self._is_known = np.zeros(self._lines, np.bool_)
        self._is_known[known.line[ends_known]] = True
        from_us, to_us = np.maximum(known.from_us, 0), np.minimum(known.to_us, length_us)
        kept = from_us < to_us
        return Spans(known.line[kept], from_us[kept], to_us[kept])

    def _fold(self, deltas: Rows, opened: Levels, line: Ints, time_us: Ints, checkpoints: Levels) -> Rows:
        """Return all rows of the piece, and go on to its end. `checkpoints`: places of books by their number."""
        count = len(line)
        is_last = np.r_[line[1:] != line[:-1], True] if count else np.empty(0, np.bool_)
        is_first = np.r_[True, is_last[:-1]]
        base = Levels(np.r_[self._levels.place, opened.place], np.r_[self._levels.size_e2, opened.size_e2])
        base = base if not len(opened.place) or not len(self._levels.place) else sum_places(*base)

        # Each change, and each line's book before the piece, belongs to the next checkpoint, or to none after the last.
        checkpoint_moments = moments(line, time_us)
        next_one = np.searchsorted(checkpoint_moments, moments(deltas.line, deltas.time_us))
        before_one = _is_of_line(line, next_one, deltas.line)
        first_one = np.searchsorted(line, base.line)
        has_one = _is_of_line(line, first_one, base.line)
        number, in_book = checkpoints.place >> _PLACE_BITS, checkpoints.place & ((1 << _PLACE_BITS) - 1)
        goes_on = ~is_last[number]

        in_line = (deltas.side << _PRICE_BITS) | deltas.price_e4
        difference = sum_places(
            np.r_[
                checkpoints.place,
                ((number[goes_on] + 1) << _PLACE_BITS) | in_book[goes_on],
                (first_one[has_one] << _PLACE_BITS) | (base.place[has_one] & ((1 << _PLACE_BITS) - 1)),
                (next_one[before_one] << _PLACE_BITS) | in_line[before_one],
            ],
            np.r_[
                checkpoints.size_e2,
                -checkpoints.size_e2[goes_on],
                -base.size_e2[has_one],
                -deltas.delta_e2[before_one],
            ],
        )
        self._levels = sum_places(
            np.r_[
                base.place[~has_one],
                (line[number[~goes_on]] << _PLACE_BITS) | in_book[~goes_on],
                (deltas.line[~before_one] << _PLACE_BITS) | in_line[~before_one],
            ],
            np.r_[base.size_e2[~has_one], checkpoints.size_e2[~goes_on], deltas.delta_e2[~before_one]],
        )
        number, side, price_e4 = split_places(difference.place)
        opens = is_first & ~self._is_open[line]
        event = np.where(opens, OPEN, RESYNC)[number]
        self._is_open[line] = self._has_book[line] = True
        open_line, open_side, open_price = split_places(opened.place)
        rows = Rows(
            np.r_[deltas.line, open_line, line[number]],
            np.r_[deltas.time_us, np.zeros(len(open_line), np.int64), time_us[number]],
            np.r_[deltas.event, np.full(len(open_line), OPEN), event],
            np.r_[deltas.side, open_side, side],
            np.r_[deltas.price_e4, open_price, price_e4],
            np.r_[deltas.delta_e2, opened.size_e2, difference.size_e2],
        )
        if not len(open_line) and not len(number):
            return rows
        # Stable: changes of a moment stand before the difference that a checkpoint makes then.
        order = np.argsort(moments(rows.line, rows.time_us), kind="stable")
        return Rows(*(column[order] for column in rows))


def _is_of_line(line: Ints, place: Ints, wanted: Ints) -> Bools:
    """Whether `place` is one of `line` and holds the wanted line."""
    found = place < len(line)
    if len(line):
        found &= line[np.minimum(place, len(line) - 1)] == wanted
    return found


def _join(line: Ints, from_us: Ints, to_us: Ints) -> Spans:
    """Put ranges in order, and make one of those that overlap or touch."""
    if not len(line):
        return Spans(_NO_INTS, _NO_INTS, _NO_INTS)
    order = np.argsort(moments(line, from_us), kind="stable")
    line, from_us = line[order], from_us[order]
    # The latest end so far of each line: lines ascend, and no piece is longer than 2^33 µs.
    latest = np.maximum.accumulate(moments(line, to_us[order]))
    end_line, end_us = split_moments(latest)
    begins = np.r_[True, (line[1:] != end_line[:-1]) | (from_us[1:] > end_us[:-1])]
    ends = np.r_[begins[1:], True]
    return Spans(line[begins], from_us[begins], end_us[ends])


def _number_of_lines(hour: HourRows) -> int:
    dtype = hour.rows[DELTAS].schema["ticker"]
    assert isinstance(dtype, pl.Enum), dtype  # noqa: S101 - what HourRows promises
    return len(dtype.categories)


def _ints(frame: pl.DataFrame, column: str) -> Ints:
    return frame.get_column(column).to_physical().cast(pl.Int64).to_numpy()


def _deltas(hour: HourRows) -> Rows:
    frame = hour.rows[DELTAS]
    return Rows(
        _ints(frame, "ticker"),
        _ints(frame, "exchange_ts") - hour.start_us,
        np.zeros(frame.height, np.int64),
        frame.get_column("side").eq("yes").cast(pl.Int64).to_numpy(),
        _ints(frame, "price_e4"),
        _ints(frame, "delta_e2"),
    )


def _coverage(hour: HourRows) -> Spans:
    frame = hour.rows[COVERAGE]
    from_us, to_us = (_ints(frame, column) - hour.start_us for column in ("from_ts", "to_ts"))
    return Spans(_ints(frame, "ticker"), from_us, to_us)


def _checkpoints(hour: HourRows) -> tuple[Ints, Ints, Levels]:
    """The line and time of the checkpoints, the first of each moment alone, and their levels by their number."""
    frame = hour.rows[CHECKPOINTS]
    frame = frame.unique(["ticker", "checkpoint_ts"], keep="first", maintain_order=True)
    line, time_us = _ints(frame, "ticker"), _ints(frame, "checkpoint_ts") - hour.start_us
    numbers, sides, prices, sizes = [_NO_INTS], [_NO_INTS], [_NO_INTS], [_NO_INTS]
    for side, name in enumerate(("no", "yes")):
        lengths = frame.get_column(f"{name}_price_e4").list.len().to_numpy()
        numbers.append(np.repeat(np.arange(frame.height), lengths))
        sides.append(np.full(int(lengths.sum()), side, np.int64))
        for column, kept in ((f"{name}_price_e4", prices), (f"{name}_count_e2", sizes)):
            kept.append(
                frame.get_column(column).explode(empty_as_null=False, keep_nulls=False).cast(pl.Int64).to_numpy()
            )
    place = places(np.concatenate(numbers), np.concatenate(sides), np.concatenate(prices))
    return line, time_us, sum_places(place, np.concatenate(sizes))
