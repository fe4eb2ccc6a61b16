"""Holes that the gatherers' ledgers leave open, against what was truly lost. Pure.

**Undeclared**: a published row that is missing although a claim holds its moment. There may be none.

**Declared without need**: how much longer a hole is than the loss that made it. How long a gatherer truly missed a
market is measured without its ledger: from the last message of its feed before anything that the gatherer did not
store (or before the exchange cut its line or garbled a frame), to the first one after the exchange had sent it the book
of that market again, which the exchange notes. What happened in between could not be known, whether or not something
did: so a market that stood still at that time is measured like one that moved. Where several gatherers record, only
what all of them missed at once was needed. Start and end of a market's recording are left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from kalshi_platform.market.coverage import Interval, holds, holes, intersection, length, union

Claims = Mapping[str, list[Interval]]
_ALWAYS = (-(2**62), 2**62)


@dataclass(frozen=True)
class Excess:
    """One declared hole of one market, and how much of it was not needed. `faults`: losses that it holds, at least 1.

    `excess_us` is for all of them together.
    """

    ticker: str
    hole: Interval
    excess_us: int
    faults: int


@dataclass(frozen=True)
class HoleAccount:
    """`true`: runs of consecutive missing deltas of one market; `undeclared` of them not wholly inside of holes.

    `declared_count`: (market, hole) pairs inside of the run; those at the ends only where something is missing.
    """

    true: int
    undeclared: int
    undeclared_rows: int
    declared_count: int
    excesses: Sequence[Excess]

    @property
    def worst_excess_us(self) -> int:
        """The most that was declared without need, per fault and market."""
        return max((-(-each.excess_us // each.faults) for each in self.excesses), default=0)

    @property
    def total_excess_us(self) -> int:
        return sum(each.excess_us for each in self.excesses)


def united(by_gatherer: Mapping[str, Claims]) -> dict[str, list[Interval]]:
    """The union of all gatherers' claims, by market."""
    found: dict[str, list[Interval]] = {}
    for of_gatherer in by_gatherer.values():
        for ticker, intervals in of_gatherer.items():
            found.setdefault(ticker, []).extend(intervals)
    return {ticker: union(intervals) for ticker, intervals in found.items()}


def account(
    claims: Claims,
    lives: Mapping[str, Interval],
    truth: pl.DataFrame,
    missing: pl.DataFrame,
    needed: Sequence[Claims],
    margin_us: int,
) -> HoleAccount:
    """Account for the holes of one run.

    `claims`: the union over gatherers. `lives`: from when to when each market could move inside of the run. `truth`:
    n, ticker, exchange_us of every published delta; `missing` those that are lost, in natural columns. `needed`: per
    gatherer what it truly missed. `margin_us` is left out at both ends of a life.
    """
    true, undeclared, rows = _true_holes(claims, truth, missing)
    missed = missed_by_all(needed)
    excesses: list[Excess] = []
    lost_of = dict(missing.group_by("ticker").agg(pl.col("exchange_us").sort()).iter_rows())
    declared = 0
    for ticker, (start, end) in lives.items():
        inside = (start + margin_us, end - margin_us)
        for low, high in holes(claims.get(ticker, []), (start, end)):
            is_inside = low < inside[1] and high > inside[0]
            declared += is_inside or any(low <= moment < high for moment in lost_of.get(ticker, ()))
        common = missed.get(ticker, []) if needed else [_ALWAYS]
        for hole in holes(claims.get(ticker, []), inside) if inside[0] < inside[1] else []:
            served = intersection([hole], common)
            excesses.append(Excess(ticker, hole, hole[1] - hole[0] - length(served), max(1, len(served))))
    return HoleAccount(true, undeclared, rows, declared, excesses)


def missed_by_all(needed: Sequence[Claims]) -> dict[str, list[Interval]]:
    """By market, what every gatherer truly missed at once."""
    if not needed:
        return {}
    common = {ticker: list(intervals) for ticker, intervals in needed[0].items()}
    for of_gatherer in needed[1:]:
        common = {ticker: intersection(each, of_gatherer.get(ticker, [])) for ticker, each in common.items()}
    return common


def _true_holes(claims: Claims, truth: pl.DataFrame, missing: pl.DataFrame) -> tuple[int, int, int]:
    """(runs of missing deltas, those with a row outside of every hole, such rows)."""
    key = ["ticker", "exchange_us"]
    lost = missing.group_by(key).agg(pl.len().alias("_lost"))
    moments = truth.select(key).unique().sort(key).join(lost, on=key, how="left", maintain_order="left")
    true = undeclared = rows = 0
    before: str | None = None
    bad = False
    for ticker, moment, count in moments.iter_rows():
        if count is None:
            before = None
            continue
        if ticker != before:
            true, before, bad = true + 1, ticker, False
        if holds(claims.get(ticker, []), moment):
            rows += count
            if not bad:
                undeclared, bad = undeclared + 1, True
    return true, undeclared, rows


def missed_by(
    truth: pl.DataFrame,
    seen: pl.DataFrame,
    served: pl.DataFrame,
    broken_us: Sequence[int],
    indices: Mapping[str, int],
) -> dict[str, list[Interval]]:
    """Return when one gatherer truly missed each market, without a look at its ledger.

    `truth`: n and the natural columns of every delta; `seen`: natural columns and how often one of its streams stored
    each. `served`: n, ticker: after which message the exchange sent it a book. `broken_us`: when the exchange cut its
    line or sent it a garbled frame. `indices`: ticker → exchange_index, which makes the feeds.
    """
    feed_of = pl.DataFrame(
        {"ticker": list(indices), "_feed": list(indices.values())}, schema_overrides={"_feed": pl.Int64}
    )
    columns = [name for name in truth.columns if name in seen.columns]
    first_book = served.group_by("ticker").agg(pl.col("n").min().alias("_first"))
    deltas = (
        truth.sort("n")
        .with_columns(_published=pl.len().over(columns))
        .join(seen, on=columns, how="left")
        .join(first_book, on="ticker", how="left")
        .join(feed_of, on="ticker", how="left")
        .with_columns(
            pl.col("_feed").fill_null(0),
            # Which of several equal ones (they share a microsecond) was lost, nobody can tell.
            _lost=(pl.col("_published") > pl.col("seen").fill_null(0)) & (pl.col("n") > pl.col("_first")),
        )
        .sort("n")
    )
    found: dict[str, list[Interval]] = {}
    # One line carries all feeds, and a frame that never came could have been of any of them.
    lost = _losses(deltas, broken_us)
    feeds = {
        int(feed): _Feed(part["n"].to_list(), part["exchange_us"].to_list(), lost)
        for (feed,), part in deltas.group_by("_feed", maintain_order=True)
    }
    for (ticker,), books in served.group_by("ticker"):
        feed = feeds.get(indices.get(str(ticker), 0))
        found[str(ticker)] = [_ALWAYS] if feed is None else feed.missed(books["n"].sort().to_list())
    for ticker in set(indices) - set(found):
        found[ticker] = [_ALWAYS]
    return found


def _losses(deltas: pl.DataFrame, broken_us: Sequence[int]) -> list[int]:
    numbers, times = deltas["n"].to_list(), deltas["exchange_us"].to_list()
    lost = deltas.filter(pl.col("_lost").fill_null(value=False))["n"].to_list()
    # A line breaks before the first message that was published after it.
    lost += [numbers[min(bisect_right(times, moment), len(numbers) - 1)] for moment in broken_us if numbers]
    return sorted(lost)


@dataclass(frozen=True)
class _Feed:
    """Numbers and times of all deltas with one exchange_index; numbers of any feed that the gatherer lost."""

    numbers: list[int]
    times: list[int]
    lost: list[int]

    def missed(self, books: Sequence[int]) -> list[Interval]:
        """What was missed of a market whose book was sent after the messages `books`."""
        intervals = [(_ALWAYS[0], self._after(books[0]))]
        for place, book in enumerate(books):
            next_book = books[place + 1] if place + 1 < len(books) else None
            loss = bisect_right(self.lost, book)
            if loss == len(self.lost) or (next_book is not None and self.lost[loss] > next_book):
                continue
            before = bisect_right(self.numbers, self.lost[loss] - 1) - 1
            start = self.times[before] if before >= 0 else _ALWAYS[0]
            intervals.append((start, _ALWAYS[1] if next_book is None else self._after(next_book)))
        return union(intervals)

    def _after(self, n: int) -> int:
        """The end of the first message after `n`."""
        place = bisect_right(self.numbers, n)
        return self.times[place] + 1 if place < len(self.times) else _ALWAYS[1]
