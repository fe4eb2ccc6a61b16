"""The order book of one market: bids of both outcomes, folded from a snapshot and deltas.

Deltas of one exchange time form one batch; a book exists only at the ends of timestamps. Inside a batch a level may go
below zero for an instant; at its end it may not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from kalshi_platform.market.records import Levels, Side


class LevelChange(NamedTuple):
    """What a delta does to a book."""

    exchange_ts_us: int
    side: Side
    price_e4: int
    delta_e2: int


class BookAt(NamedTuple):
    """A book at the end of `exchange_ts_us`; `negative` names levels below zero, which only a lost delta explains."""

    exchange_ts_us: int
    yes: Levels
    no: Levels
    negative: tuple[tuple[Side, int], ...]


class Book:
    """A mutable book. Levels at zero vanish; levels below zero are kept and reported by `negative_levels`."""

    __slots__ = ("_no", "_yes")

    def __init__(self, yes: Iterable[tuple[int, int]] = (), no: Iterable[tuple[int, int]] = ()) -> None:
        self._yes: dict[int, int] = {price: count for price, count in yes if count}
        self._no: dict[int, int] = {price: count for price, count in no if count}

    def replace(self, yes: Iterable[tuple[int, int]], no: Iterable[tuple[int, int]]) -> None:
        """Put a snapshot in place of everything."""
        self.__init__(yes, no)  # type: ignore[misc]

    def apply(self, side: Side, price_e4: int, delta_e2: int) -> int:
        """Add `delta_e2` to a level and return its new size."""
        levels = self._yes if side == "yes" else self._no
        size = levels.get(price_e4, 0) + delta_e2
        if size:
            levels[price_e4] = size
        else:
            levels.pop(price_e4, None)
        return size

    @property
    def yes(self) -> Levels:
        """Bids for yes, ascending by price."""
        return tuple(sorted(self._yes.items()))

    @property
    def no(self) -> Levels:
        """Bids for no, ascending by price, on the no-leg scale."""
        return tuple(sorted(self._no.items()))

    @property
    def negative_levels(self) -> tuple[tuple[Side, int], ...]:
        """Levels below zero: (side, price_e4)."""
        sides: tuple[tuple[Side, Mapping[int, int]], ...] = (("yes", self._yes), ("no", self._no))
        return tuple((side, price) for side, levels in sides for price, size in sorted(levels.items()) if size < 0)

    def at(self, exchange_ts_us: int) -> BookAt:
        """Freeze the book as the one at the end of `exchange_ts_us`."""
        return BookAt(exchange_ts_us, self.yes, self.no, self.negative_levels)


def fold(yes: Levels, no: Levels, changes: Iterable[LevelChange]) -> Book:
    """Return the book after all `changes` (their order does not matter for the end)."""
    book = Book(yes, no)
    for change in changes:
        book.apply(change.side, change.price_e4, change.delta_e2)
    return book


def books(yes: Levels, no: Levels, changes: Iterable[LevelChange]) -> Iterator[BookAt]:
    """Yield the book at the end of every timestamp. `changes` must be ascending in time."""
    book = Book(yes, no)
    current: int | None = None
    for change in changes:
        if current is not None and change.exchange_ts_us != current:
            yield book.at(current)
        current = change.exchange_ts_us
        book.apply(change.side, change.price_e4, change.delta_e2)
    if current is not None:
        yield book.at(current)
