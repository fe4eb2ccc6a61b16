"""Orders deltas of many markets by exchange time, and finds which ranges of them are covered. Pure.

Markets are numbers (their place in `tickers`). Times may reach `SPAN_US` beyond the base of a timeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from kalshi_platform.deduplicator.coverage.multiset_hash import Hashes, running_sums
from kalshi_platform.market.intervals import Interval

Ints = npt.NDArray[np.int64]
SPAN_US = 1 << 36
"""About 19 hours."""


class TimelineKeys:
    """Markets and times as one number each, ascending by market and time."""

    def __init__(self, base_us: int) -> None:
        self.base_us = base_us

    def key(self, market: Ints, exchange_us: Ints) -> Ints:
        """Market and time as one number; times outside the span count as its ends."""
        found: Ints = market.astype(np.int64) * SPAN_US + np.clip(exchange_us - self.base_us, 0, SPAN_US - 1)
        return found


class Timeline(TimelineKeys):
    """Rows sorted by market and time; those of one exchange time by observer (a number for its stream) and seq."""

    def __init__(
        self,
        base_us: int,
        market: Ints,
        exchange_us: Ints,
        parts: Hashes,
        contents: Hashes,
        observer: Ints | None = None,
        seq: Ints | None = None,
    ) -> None:
        super().__init__(base_us)
        keys = self.key(market, exchange_us)
        order = np.argsort(keys, kind="stable")
        if observer is not None and seq is not None:
            order = _order_equal(keys, order, observer, seq)
        self.keys: Ints = keys[order]
        self.parts = parts[order]
        self.observer = None if observer is None else observer[order]
        self.sums: Hashes = running_sums(self.parts)
        self.contents: Hashes = running_sums(contents[order])

    def after(self, market: Ints, exchange_us: Ints) -> Ints:
        """How many rows come before the end of that exchange time of that market."""
        return np.searchsorted(self.keys, self.key(market, exchange_us), side="right")

    def before(self, market: Ints, exchange_us: Ints) -> Ints:
        """How many rows come before that exchange time of that market."""
        return np.searchsorted(self.keys, self.key(market, exchange_us), side="left")


class Covered:
    """Which ranges are covered, market by market; `market.intervals.union` makes each list."""

    def __init__(self, tickers: Sequence[str], coverage: Mapping[str, Sequence[Interval]]) -> None:
        rows = [(m, low, high) for m, ticker in enumerate(tickers) for low, high in coverage.get(ticker, ())]
        columns = np.array(rows, dtype=np.int64).reshape(len(rows), 3)
        self._market, self._low, self._high = (columns[:, number] for number in range(3))
        self._base_us = int(self._low.min()) if rows else 0
        self._keys = self._market * SPAN_US + (self._low - self._base_us)

    def holds(self, market: Ints, low_us: Ints, high_us: Ints) -> npt.NDArray[np.bool_]:
        """Whether [low, high) is covered as a whole; an empty range always is."""
        wanted = market.astype(np.int64) * SPAN_US + np.clip(low_us - self._base_us, -1, SPAN_US - 1)
        place = np.searchsorted(self._keys, wanted, side="right") - 1
        found = place >= 0
        near = np.maximum(place, 0)
        if len(self._keys):
            found &= (self._market[near] == market) & (self._low[near] <= low_us) & (high_us <= self._high[near])
        return found | (low_us >= high_us)


def _order_equal(keys: Ints, order: Ints, observer: Ints, seq: Ints) -> Ints:
    """Put rows of equal keys, which are few, in the order of observer and seq. `order`: that of the keys."""
    ordered = keys[order]
    equal = np.zeros(len(order), dtype=np.bool_)
    equal[1:] = ordered[1:] == ordered[:-1]
    equal[:-1] |= equal[1:]
    places = np.flatnonzero(equal)
    rows = order[places]
    order[places] = rows[np.lexsort((seq[rows], observer[rows], keys[rows]))]
    return order
