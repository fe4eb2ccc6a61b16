"""Replays a range: what happened, in the order of time, with the book of each market kept beside.

Deltas of one moment and market apply together: at each of their events the book is already the one at the end of that
moment. Of one moment, holes begin first, then come deltas, then books that become known, trades, tickers, lifecycle.
Deltas take memory for `rows_in_memory` (about 60 bytes each) and the books, however busy an hour is. Holes of the whole
range are held besides, and of other tables the rows of a window, of an hour at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt

from kalshi_platform.lake.layout import find_dataset
from kalshi_platform.lake.reader.coverage import CoverageHole, holes_by_market, require_whole
from kalshi_platform.lake.reader.frames import read_partitions, require_partitions
from kalshi_platform.lake.reader.known_books import KnownBook, KnownBooks
from kalshi_platform.lake.reader.source import AbsentPartition, Holes, Selection, Source, make_source
from kalshi_platform.lake.reader.time_order import ROWS_IN_MEMORY, MarketNumbers, Window, read_windows
from kalshi_platform.lake.store import Lake
from kalshi_platform.market.times import datetime_from_us, hour_of, us_from_datetime

Also: TypeAlias = Literal["trades", "tickers", "market_lifecycle"]
_SIDES = ("yes", "no")
_ROWS_AT_ONCE = 32 * 1024
_PRICES = np.array(range(10_001), dtype=object)
# Of one moment: books of the hour before, holes, deltas, books that become known, rows of other tables.
_OPENING, _HOLE, _KNOWN, _RECORD = -1, 0, 1, 2


class MarketBook:
    """The book of one market as a replay stands: sizes (1/100 contract) by price (1/10,000 dollar), bids of both sides.

    `exact`: nothing is missing since a checkpoint, so it is the exchange's book.
    """

    __slots__ = ("exact", "no", "ticker", "yes")

    def __init__(self, ticker: str) -> None:
        self.ticker = ticker
        self.yes: dict[int, int] = {}
        self.no: dict[int, int] = {}
        self.exact = False

    def best_bid(self) -> tuple[int, int] | None:
        """The best bid for yes: its price and size; None where there is none."""
        return None if not self.yes else (price := max(self.yes), self.yes[price])

    def best_ask(self) -> tuple[int, int] | None:
        """The best offer of yes, which is the best bid for no: its price for yes and its size."""
        return None if not self.no else (10_000 - (price := max(self.no)), self.no[price])


class Delta(msgspec.Struct, gc=False):
    """A change of a level; `size_e2` and `book` are what the level and its market have at the end of the moment."""

    ts_us: int
    book: MarketBook
    side: str
    price_e4: int
    delta_e2: int
    size_e2: int


class HoleBegins(msgspec.Struct, gc=False):
    """From here to `to_us` deltas of the market may be missing; its book is not exact until BookKnown."""

    ts_us: int
    book: MarketBook
    to_us: int
    reason: str


class BookKnown(msgspec.Struct, gc=False):
    """The book was taken from a checkpoint, and is exact from the end of this moment on."""

    ts_us: int
    book: MarketBook


class Record(msgspec.Struct, gc=False):
    """A row of `table` (trades, tickers, market_lifecycle) by the names of its columns; `book`: of its market."""

    ts_us: int
    book: MarketBook
    table: str
    values: Mapping[str, Any]


Event: TypeAlias = Delta | HoleBegins | BookKnown | Record


class _Other(NamedTuple):
    """What else happens at a moment: ordered by time, then by rank, then as it came."""

    ts_us: int
    rank: int
    number: int
    what: CoverageHole | KnownBook | _Row


class _Row(NamedTuple):
    table: str
    ticker: str
    values: Mapping[str, Any]


class Replay:
    """Iterates over the events of a range; `books` holds the book of each market as it stands now."""

    def __init__(
        self,
        source: Source,
        start: datetime,
        end: datetime,
        tickers: Sequence[str] | None,
        also: Sequence[Also],
        holes: Holes,
        rows_in_memory: int,
    ) -> None:
        self.books: dict[str, MarketBook] = {}
        self._source = source
        self._start_us = us_from_datetime(start)
        # Books are kept from the start of the hour on: a checkpoint stands at the end of the hour before.
        self._begin, self._end = hour_of(start), end
        self._tickers = None if tickers is None else tuple(tickers)
        self._also = tuple(also)
        self._holes = holes
        self._rows_in_memory = rows_in_memory
        self._numbers = MarketNumbers(tickers)
        # By key, which is twice the number of a market, plus 1 for the side no.
        self._levels_of: list[dict[int, int]] = []
        self._book_of: list[MarketBook] = []
        self._held: list[Delta] = []

    def __iter__(self) -> Iterator[Event]:
        # Chained in C: a generator within a generator would cost every event a call more.
        return chain.from_iterable(self._windows())

    def _windows(self) -> Iterator[Iterator[Event]]:
        """Yield the events of each window, which are to be read before the next is asked for."""
        with self._source.session():
            holes = holes_by_market(self._source, self._begin, self._end, self._tickers)
            if self._holes == "raise":
                wanted = [hole for each in holes.values() for hole in each if hole.to_us > self._start_us]
                require_whole(wanted, "the replay has holes", allow_unclosed=self._source.takes_unclosed)
                self._require_books(holes)
                self._require_records()
            for ticker in sorted(holes):
                self._find(ticker)
            known = KnownBooks(self._source, self._begin, self._end, holes)
            begins = deque(
                sorted(
                    # One that spans the start is an event there; one before it leaves its book unknown all the same.
                    (max(hole.from_us, self._start_us) if hole.to_us > self._start_us else hole.from_us, hole)
                    for each in holes.values()
                    for hole in each
                )
            )
            windows = read_windows(
                self._source, self._begin, self._end, self._tickers, self._numbers, rows_in_memory=self._rows_in_memory
            )
            for window in windows:
                for ticker in self._numbers.tickers[len(self.books) :]:
                    self._find(ticker)
                yield self._replay_window(window, self._others(window, begins, known))

    def _find(self, ticker: str) -> MarketBook:
        book = self.books.get(ticker)
        if book is None:
            self._numbers.number(ticker)
            book = self.books[ticker] = MarketBook(ticker)
            self._levels_of += [book.yes, book.no]
            self._book_of += [book, book]
        return book

    def _require_books(self, holes: Mapping[str, Sequence[CoverageHole]]) -> None:
        """Raise HoleInRange where a hole before the start, in its hour, leaves a book unknown at the start."""
        before = {
            ticker: early
            for ticker, each in holes.items()
            if (early := [hole for hole in each if hole.to_us <= self._start_us])
        }
        if not before:
            return
        known = KnownBooks(self._source, self._begin, datetime_from_us(self._start_us), before)
        newest = {book.ticker: book.ts_us for book in known.before(self._start_us)}
        lost = [each[-1] for ticker, each in sorted(before.items()) if newest.get(ticker, -1) < each[-1].to_us - 1]
        require_whole(lost, "books are unknown at the start", allow_unclosed=self._source.takes_unclosed)

    def _require_records(self) -> None:
        for table in self._also:
            data = find_dataset(f"raw/{table}")
            found = self._source.find(data, datetime_from_us(self._start_us), self._end)
            require_partitions(data, [each for each in found if isinstance(each, AbsentPartition)])

    def _others(self, window: Window, holes: deque[tuple[int, CoverageHole]], known: KnownBooks) -> list[_Other]:
        """What else happens in a window, in order."""
        found: list[_Other] = []
        low, high = window.low_us, window.high_us
        while holes and holes[0][0] < high:
            from_us, hole = holes.popleft()
            found.append(_Other(from_us, _HOLE, len(found), hole))
        for book in known.before(high):
            # One of the end of the hour before goes ahead of all.
            place = (low, _OPENING) if book.ts_us < low else (book.ts_us, _KNOWN)
            found.append(_Other(*place, len(found), book))
        if high > self._start_us:
            selection = Selection(datetime_from_us(max(low, self._start_us)), datetime_from_us(high), self._tickers)
            for table in self._also:
                data = find_dataset(f"raw/{table}")
                rows = read_partitions(self._source, data, selection)
                times = rows.get_column(data.time_column).dt.epoch("us").to_list()
                for ts_us, values in zip(times, rows.iter_rows(named=True), strict=True):
                    found.append(_Other(ts_us, _RECORD, len(found), _Row(table, values["ticker"] or "", values)))
        found.sort(key=lambda other: other[:3])
        return found

    def _replay_window(self, window: Window, others: list[_Other]) -> Iterator[Event]:
        rows, start_us = window.rows, self._start_us
        times, keys = rows["ts_us"], rows["key"]
        together = np.zeros(len(rows), np.bool_)
        together[:-1] = (times[1:] == times[:-1]) & (keys[1:] >> 1 == keys[:-1] >> 1)
        before_deltas = np.array([other.rank < _KNOWN for other in others], np.bool_)
        moments = np.array([other.ts_us for other in others], np.int64)
        places = np.where(
            before_deltas, np.searchsorted(times, moments, "left"), np.searchsorted(times, moments, "right")
        ).tolist()
        levels_of, book_of, held = self._levels_of, self._book_of, self._held
        next_other = 0
        for first in range(0, max(len(rows), 1), _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, len(rows))
            part = slice(first, last)
            deltas = zip(
                times[part].tolist(),
                keys[part].tolist(),
                _shared_prices(rows["price_e4"][part]),
                rows["delta_e2"][part].tolist(),
                together[part].tolist(),
                strict=True,
            )
            at = first
            while True:
                is_due = next_other < len(others) and (places[next_other] < last or last == len(rows))
                until = places[next_other] if is_due else last
                for ts_us, key, price_e4, delta_e2, is_together in islice(deltas, until - at):
                    levels = levels_of[key]
                    size_e2 = levels.get(price_e4, 0) + delta_e2
                    if size_e2:
                        levels[price_e4] = size_e2
                    else:
                        levels.pop(price_e4, None)
                    delta = Delta(ts_us, book_of[key], _SIDES[key & 1], price_e4, delta_e2, size_e2)
                    if is_together:
                        held.append(delta)
                    elif held:
                        held.append(delta)
                        _end_moment(held)
                        if ts_us >= start_us:
                            yield from held
                        held.clear()
                    else:
                        if size_e2 < 0:
                            # What only a lost delta explains.
                            delta.book.exact = False
                        if ts_us >= start_us:
                            yield delta
                at = until
                if not is_due:
                    break
                event = self._apply(others[next_other])
                next_other += 1
                if event.ts_us >= start_us:
                    yield event

    def _apply(self, other: _Other) -> Event:
        what = other.what
        if isinstance(what, CoverageHole):
            book = self._find(what.ticker or "")
            book.exact = False
            return HoleBegins(other.ts_us, book, what.to_us, what.reason)
        book = self._find(what.ticker)
        if isinstance(what, KnownBook):
            for levels, (prices, sizes) in ((book.yes, what.yes), (book.no, what.no)):
                levels.clear()
                levels.update(zip(prices, sizes, strict=True))
            book.exact = True
            return BookKnown(what.ts_us, book)
        return Record(other.ts_us, book, what.table, what.values)


def _end_moment(deltas: Sequence[Delta]) -> None:
    """Give the deltas of a market's moment the sizes at its end: within it, changes of a level have no order."""
    book = deltas[0].book
    for delta in deltas:
        delta.size_e2 = (book.yes if delta.side == "yes" else book.no).get(delta.price_e4, 0)
        if delta.size_e2 < 0:
            book.exact = False


def _shared_prices(prices: npt.NDArray[np.integer]) -> list[int]:
    """Prices as Python's integers, the same object for the same price, which a dict finds without comparing."""
    if len(prices) and prices.min() >= 0 and prices.max() < len(_PRICES):
        return cast(list[int], _PRICES[prices].tolist())
    return cast(list[int], prices.tolist())


def replay(
    lake: Lake | Source,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None = None,
    *,
    also: Sequence[Also] = ("trades",),
    holes: Holes = "mark",
    open: bool = False,
    production_url: str | None = None,
    rows_in_memory: int = ROWS_IN_MEMORY,
) -> Replay:
    """Replay [start, end) of some markets or of all: iterate over it for the events, see its `books` beside.

    `also`: raw tables whose rows come as Records. With `holes="mark"` a hole is an event (HoleBegins), and its market's
    book is not exact until the next checkpoint (BookKnown). With "raise" HoleInRange comes before any event, also for a
    hole before the start after which no book is known by then. Raises LakeCorrupt, LakeUnavailable,
    DatabaseUnavailable.
    """
    source = make_source(lake, open=open, production_url=production_url)
    return Replay(source, start, end, tickers, also, holes, rows_in_memory)
