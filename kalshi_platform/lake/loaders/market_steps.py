"""One market's range as the steps that a backtester takes: its book, changes of levels, spans without a book, trades.

Books are seen from yes: a bid for no at p is an offer of yes at 1 - p. Prices are in 1/10,000 dollar, sizes in 1/100
contract. Changes of one exchange time are one step, with each level's size after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

from kalshi_platform.lake.reader import BookKnown, Delta, Event, HoleBegins, Record, Source, find_book, replay
from kalshi_platform.lake.reader.source import Holes
from kalshi_platform.market.times import us_from_datetime

BookSide: TypeAlias = Literal["bid", "ask"]
Level: TypeAlias = tuple[BookSide, int]
"""A side of the book and a price."""
_Book: TypeAlias = dict[Level, int] | None
_ONE_DOLLAR_E4 = 10_000


class BookGiven(NamedTuple):
    """The whole book, which replaces what was known: sizes by level, best prices first."""

    ts_us: int
    levels: tuple[tuple[Level, int], ...]


class LevelsChanged(NamedTuple):
    """Levels with their sizes before and after; those that shrink first, so that no order of them crosses the book."""

    ts_us: int
    changes: tuple[tuple[Level, int, int], ...]


class BookLost(NamedTuple):
    """From here on the book is not known, until it is given again."""

    ts_us: int


class Traded(NamedTuple):
    """A row of raw/trades."""

    ts_us: int
    values: Mapping[str, Any]


Step: TypeAlias = BookGiven | LevelsChanged | BookLost | Traded


def market_steps(
    source: Source, ticker: str, start: datetime, end: datetime, *, holes: Holes = "mark", block_trades: bool = False
) -> Iterator[Step]:
    """Yield the steps of a market in [start, end), ascending; the first is its book at the start, where it is known.

    Block trades are negotiated off the book and left out unless wanted. Errors: those of `reader.replay`.
    """
    with source.session():
        before = find_book(source, ticker, start - timedelta(microseconds=1))
        events = replay(source, start, end, [ticker], holes=holes)
        book = {yes_level(side, price_e4): size for side, price_e4, size in before.levels.rows() if size}
        for step in fold_events(us_from_datetime(start), book if before.exact else None, events):
            if block_trades or not (isinstance(step, Traded) and step.values["is_block_trade"]):
                yield step


def yes_level(side: str, price_e4: int) -> Level:
    """The level of the yes book at which bids for an outcome stand."""
    return ("bid", price_e4) if side == "yes" else ("ask", _ONE_DOLLAR_E4 - price_e4)


def fold_events(start_us: int, book: _Book, events: Iterable[Event]) -> Iterator[Step]:
    """Yield the steps of one market's events; `book`: its sizes before them, None where they are not known."""
    if book is not None:
        yield _given(start_us, book)
    changes: dict[Level, int] = {}
    changes_us = start_us
    for event in events:
        if changes and not (isinstance(event, Delta) and event.ts_us == changes_us):
            book, steps = _apply(book, changes, changes_us)
            yield from steps
            changes = {}
        if isinstance(event, Delta):
            level, changes_us = yes_level(event.side, event.price_e4), event.ts_us
            changes[level] = changes.get(level, 0) + event.delta_e2
        else:
            book, steps = _take(book, event)
            yield from steps
    yield from _apply(book, changes, changes_us)[1]


def _take(book: _Book, event: Record | HoleBegins | BookKnown) -> tuple[_Book, list[Step]]:
    """The book after an event that is no change of it, and the steps of the event."""
    if isinstance(event, Record):
        return book, [Traded(event.ts_us, event.values)]
    if isinstance(event, HoleBegins):
        return None, [] if book is None else [BookLost(event.ts_us)]
    if book is not None:
        return book, []
    sides = (("yes", event.book.yes), ("no", event.book.no))
    known = {yes_level(side, price_e4): size for side, levels in sides for price_e4, size in levels.items()}
    return known, [_given(event.ts_us, known)]


def _apply(book: _Book, changes: Mapping[Level, int], ts_us: int) -> tuple[_Book, list[Step]]:
    """The book after the sums of one moment. A size below zero means that changes are missing: it is lost."""
    if book is None:
        return None, []
    sizes = [(level, before := book.get(level, 0), before + delta) for level, delta in changes.items() if delta]
    if any(size < 0 for _, _, size in sizes):
        return None, [BookLost(ts_us)]
    for level, _, size in sizes:
        if size:
            book[level] = size
        else:
            del book[level]
    sizes.sort(key=lambda change: change[2] > change[1])
    return book, [LevelsChanged(ts_us, tuple(sizes))] if sizes else []


def _given(ts_us: int, book: Mapping[Level, int]) -> BookGiven:
    bids = sorted((item for item in book.items() if item[0][0] == "bid"), reverse=True)
    asks = sorted(item for item in book.items() if item[0][0] == "ask")
    return BookGiven(ts_us, (*bids, *asks))
