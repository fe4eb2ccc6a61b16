"""Makes processed/quotes: each change of the best bid or offer, and where they are not known. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from kalshi_platform.lake.builders.best_levels import best_levels
from kalshi_platform.lake.builders.book_deltas import enum
from kalshi_platform.lake.builders.book_fold import (
    RESYNC,
    BookFold,
    Bools,
    Folded,
    Ints,
    Spans,
    moments,
    split_moments,
    split_places,
)
from kalshi_platform.lake.builders.book_inputs import DELTAS
from kalshi_platform.lake.builders.builder import HourRows

CHANGE, HOLE, OPEN, RESYNC_QUOTE = range(4)
_EVENT = pl.Enum(["change", "hole", "open", "resync"])
_TIME = pl.Datetime("us", "UTC")
_MOST_PRICE_E4 = 10_000
_NOT_YET, _QUOTED, _IN_HOLE = range(3)


class _Quotes(NamedTuple):
    """Best levels: the yes bid, and the no bid, whose other side is the offer; price -1 where a side is empty."""

    bid_e4: Ints
    bid_e2: Ints
    no_e4: Ints
    no_e2: Ints

    def at(self, chosen: Ints | Bools) -> _Quotes:
        """Those at some places."""
        return _Quotes(*(column[chosen] for column in self))


class Quotes:
    """The rows of processed/quotes."""

    def __init__(self) -> None:
        self._fold = BookFold()
        self._state = np.empty(0, np.int8)
        self._last = _Quotes(*(np.empty(0, np.int64) for _ in range(4)))

    def add(self, hour: HourRows) -> pl.DataFrame:
        """Return the rows of these hours."""
        folded = self._fold.add(hour)
        if folded is None:
            return pl.DataFrame()
        if folded.is_first:
            lines = len(folded.known_before)
            self._state = np.zeros(lines, np.int8)
            self._last = _Quotes(*(np.zeros(lines, np.int64) for _ in range(4)))
        return self._quote(folded, hour.rows[DELTAS].schema["ticker"])

    def finish(self) -> pl.DataFrame:
        """Return nothing: every row came with its hour."""
        return pl.DataFrame()

    def _quote(self, folded: Folded, markets: pl.DataType) -> pl.DataFrame:
        lines, known, rows = len(folded.known_before), folded.known, folded.rows
        at = np.unique(
            np.r_[
                moments(np.arange(lines), np.full(lines, -1)),
                moments(rows.line, rows.time_us),
                moments(known.line, known.from_us),
            ]
        )
        line, time_us = split_moments(at)
        stops: Ints = np.searchsorted(line, np.arange(lines), side="right")
        quotes = _best(folded, at, stops[line])

        # Of each moment: whether it is known, begins a range in which it is, and the quote before it.
        span = np.searchsorted(moments(known.line, known.from_us), at, side="right") - 1
        is_known = (span >= 0) & (time_us >= 0)
        begins = is_known
        if len(known.line):
            is_known &= (known.line[span] == line) & (known.to_us[span] > time_us)
            begins = is_known & (known.from_us[span] == time_us)
        before = _Quotes(*(np.r_[column[:1], column[:-1]] for column in quotes))
        goes_on = begins & (time_us == 0) & (self._state[line] == _QUOTED) & folded.known_before[line]
        before = _Quotes(
            *(np.where(goes_on, last[line], column) for column, last in zip(before, self._last, strict=True))
        )
        differs = np.zeros(len(at), np.bool_)
        for column, earlier in zip(quotes, before, strict=True):
            differs |= column != earlier
        given = np.flatnonzero(is_known & (differs | (begins & ~goes_on)))

        hole_line, hole_us = self._holes(folded)
        event = self._events(folded, given, line, at, begins & ~goes_on)
        frame = _frame(
            np.r_[line[given], hole_line],
            np.r_[time_us[given], hole_us] + folded.start_us,
            np.r_[event, np.full(len(hole_line), HOLE)],
            _Quotes(*(np.r_[column[given], np.full(len(hole_line), -1)] for column in quotes)),
            markets,
        )
        self._go_on(folded, known, quotes, at)
        return frame.sort("ticker", "exchange_ts")

    def _holes(self, folded: Folded) -> tuple[Ints, Ints]:
        """The lines and times at which a book is not known any more."""
        known = folded.known
        ends = known.to_us < folded.length_us
        begun = np.zeros(len(folded.known_before), np.bool_)
        begun[known.line[known.from_us == 0]] = True
        at_once = np.flatnonzero(folded.known_before & ~begun & (self._state == _QUOTED))
        return np.r_[at_once, known.line[ends]], np.r_[np.zeros(len(at_once), np.int64), known.to_us[ends]]

    def _events(self, folded: Folded, given: Ints, line: Ints, at: Ints, begins: Bools) -> Ints:
        rows = folded.rows
        resynced = rows.event == RESYNC
        is_resync = np.isin(at[given], moments(rows.line[resynced], rows.time_us[resynced])) | begins[given]
        event = np.where(is_resync, RESYNC_QUOTE, CHANGE)
        given_line: Ints = line[given]
        is_first = np.ones(len(given), np.bool_)
        is_first[1:] = given_line[1:] != given_line[:-1]
        event[is_first & (self._state[given_line] == _NOT_YET)] = OPEN
        return event

    def _go_on(self, folded: Folded, known: Spans, quotes: _Quotes, at: Ints) -> None:
        """Remember what each book was quoted with last, and whether it is known at the end of the piece."""
        self._state[folded.known_before & (self._state == _QUOTED)] = _IN_HOLE
        self._state[known.line] = _IN_HOLE
        ends_known = known.line[known.to_us == folded.length_us]
        self._state[ends_known] = _QUOTED
        lines = np.arange(len(self._state))
        last: Ints = np.searchsorted(at, moments(lines, np.full(len(lines), folded.length_us)), side="right") - 1
        self._last = quotes.at(last)


def _best(folded: Folded, at: Ints, stop: Ints) -> _Quotes:
    """The best levels of both sides at each moment."""
    level_line, level_side, level_price = split_places(folded.levels.place)
    rows = folded.rows
    before = moments(level_line, np.full(len(level_line), -1))
    moment = np.searchsorted(at, np.concatenate([before, moments(rows.line, rows.time_us)]))
    side = np.r_[level_side, rows.side]
    price_e4 = np.r_[level_price, rows.price_e4]
    delta_e2 = np.r_[folded.levels.size_e2, rows.delta_e2]
    found: list[Ints] = []
    for wanted in (1, 0):
        mine = side == wanted
        found += best_levels(stop, moment[mine], price_e4[mine], delta_e2[mine])
    return _Quotes(*found)


def _frame(line: Ints, time_us: Ints, event: Ints, quotes: _Quotes, markets: pl.DataType) -> pl.DataFrame:
    has_bid, has_ask = quotes.bid_e4 >= 0, quotes.no_e4 >= 0
    return pl.DataFrame(
        {
            "ticker": enum(line, markets),
            "exchange_ts": pl.Series(time_us).cast(_TIME),
            "event": enum(event, _EVENT),
            "bid_dollars": _where(has_bid, quotes.bid_e4, pl.Int32),
            "bid_contracts": _where(has_bid, quotes.bid_e2, pl.Int64),
            "ask_dollars": _where(has_ask, _MOST_PRICE_E4 - quotes.no_e4, pl.Int32),
            "ask_contracts": _where(has_ask, quotes.no_e2, pl.Int64),
        }
    )


def _where(is_there: Bools, values: Ints, dtype: type[pl.DataType]) -> pl.Series:
    return pl.select(pl.when(pl.Series(is_there)).then(pl.Series(values).cast(dtype))).to_series()
