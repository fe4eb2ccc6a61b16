"""When one gatherer truly missed each market, measured without a look at its ledger. Pure.

From the last message of the market's feed before anything that the gatherer did not store (or before the exchange cut
its line or garbled a frame), to the first one after the exchange had sent it the book of that market again, which the
exchange notes. What happened in between could not be known, whether or not something did: so a market that stood still
at that time is measured like one that moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from kalshi_platform.market.intervals import Interval, intersection, union

Claims: TypeAlias = Mapping[str, list[Interval]]
Integers: TypeAlias = npt.NDArray[np.int64]
ALWAYS = (-(2**62), 2**62)


@dataclass(frozen=True)
class _Feed:
    """Numbers and times of all deltas with one exchange_index, in order of publication."""

    numbers: Integers
    times: Integers

    def lost_rows(self, lost: Integers, books: Sequence[int]) -> list[Interval]:
        """What was missed of a market whose book was sent after the messages `books`; `lost`: numbers, sorted."""
        intervals = [(ALWAYS[0], self._after(books[0]))]
        for place, book in enumerate(books):
            next_book = books[place + 1] if place + 1 < len(books) else None
            loss = int(np.searchsorted(lost, book, side="right"))
            if loss == len(lost) or (next_book is not None and lost[loss] > next_book):
                continue
            before = int(np.searchsorted(self.numbers, lost[loss] - 1, side="right")) - 1
            start = int(self.times[before]) if before >= 0 else ALWAYS[0]
            intervals.append((start, ALWAYS[1] if next_book is None else self._after(next_book)))
        return union(intervals)

    def _after(self, n: int) -> int:
        """The end of the first message after `n`."""
        place = int(np.searchsorted(self.numbers, n, side="right"))
        return int(self.times[place]) + 1 if place < len(self.times) else ALWAYS[1]


class Feeds:
    """Every published delta's number and time, by feed: 17 bytes each. Parts may come in any order."""

    def __init__(self, indices: Mapping[str, int]) -> None:
        """`indices`: ticker → exchange_index, which makes the feeds."""
        self._indices = indices
        self._of = pl.DataFrame(
            {"ticker": list(indices), "_feed": list(indices.values())}, schema_overrides={"_feed": pl.Int32}
        )
        self._parts: list[pl.DataFrame] = []
        self._feeds: dict[int, _Feed] | None = None
        self._all = _Feed(np.empty(0, np.int64), np.empty(0, np.int64))

    def add(self, truth: pl.DataFrame) -> None:
        """Take n, ticker, exchange_us of published deltas."""
        self._feeds = None
        part = truth.select("n", "exchange_us", "ticker").join(self._of, on="ticker", how="left")
        self._parts.append(part.select("n", "exchange_us", pl.col("_feed").fill_null(0)))

    def lost_rows(
        self, lost: Sequence[int], served: pl.DataFrame, broken_us: Sequence[int]
    ) -> dict[str, list[Interval]]:
        """Return what one gatherer missed.

        `lost`: numbers of deltas that it did not store. `served`: n, ticker: after which message the exchange sent it
        a book. `broken_us`: when the exchange cut its line or sent it a garbled frame.
        """
        feeds = self._by_feed()
        # One line carries all feeds, and a frame that never came could have been of any of them.
        all_lost = np.sort(np.array([*lost, *self._first_after(broken_us)], np.int64))
        found: dict[str, list[Interval]] = {}
        for (ticker,), books in served.group_by("ticker"):
            feed = feeds.get(self._indices.get(str(ticker), 0))
            found[str(ticker)] = [ALWAYS] if feed is None else feed.lost_rows(all_lost, books["n"].sort().to_list())
        for ticker in set(self._indices) - set(found):
            found[ticker] = [ALWAYS]
        return found

    def _first_after(self, broken_us: Sequence[int]) -> list[int]:
        """A line breaks before the first message that was published after it."""
        numbers, times = self._all.numbers, self._all.times
        if not len(numbers):
            return []
        places = np.searchsorted(times, np.array(broken_us, np.int64), side="right")
        return [int(each) for each in numbers[np.minimum(places, len(numbers) - 1)]]

    def _by_feed(self) -> dict[int, _Feed]:
        if self._feeds is None:
            whole = pl.concat(self._parts).sort("n") if self._parts else None
            self._parts = [] if whole is None else [whole]
            if whole is None:
                self._feeds = {}
                return self._feeds
            self._all = _feed(whole)
            self._feeds = {
                int(feed): self._all if part.height == whole.height else _feed(part)
                for (feed,), part in whole.group_by("_feed", maintain_order=True)
            }
        return self._feeds


def lost_of(truth: pl.DataFrame, seen: pl.DataFrame, served: pl.DataFrame) -> list[int]:
    """Return the numbers of deltas that a gatherer did not store although it had the market's book.

    `truth`: n and the natural columns; `seen`: natural columns, and how often one of its streams stored each. Both hold
    all rows of the times that they speak of. `served` as for `Feeds.lost_rows`.
    """
    columns = [name for name in truth.columns if name in seen.columns]
    first_book = served.group_by("ticker").agg(pl.col("n").min().alias("_first"))
    return (
        truth.with_columns(_published=pl.len().over(columns))
        .join(seen, on=columns, how="left")
        .join(first_book, on="ticker")
        # Which of several equal ones (they share a microsecond) was lost, nobody can tell.
        .filter((pl.col("_published") > pl.col("seen").fill_null(0)) & (pl.col("n") > pl.col("_first")))["n"]
        .to_list()
    )


def lost_by_all(needed: Sequence[Claims]) -> dict[str, list[Interval]]:
    """By market, what every gatherer truly missed at once."""
    if not needed:
        return {}
    common = {ticker: list(intervals) for ticker, intervals in needed[0].items()}
    for of_gatherer in needed[1:]:
        common = {ticker: intersection(each, of_gatherer.get(ticker, [])) for ticker, each in common.items()}
    return common


def _feed(rows: pl.DataFrame) -> _Feed:
    return _Feed(rows["n"].to_numpy(), rows["exchange_us"].to_numpy())
