"""Holes that production's coverage leaves open, against what was truly lost. Pure.

**Undeclared**: a published row that is missing although a claim holds its moment. There may be none.

**Declared without need**: how much longer a hole is than the losses that made it, which `lost_rows.py` measures. Where
several gatherers record, only what all of them lost at once was needed. What is left of a hole are stretches before,
between and after its losses; each is judged by itself, so that one long hole cannot hide behind many small losses.
Start and end of a market's recording are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from kalshi_platform.lab.proof.comparison.lost_rows import ALWAYS, Claims, lost_by_all
from kalshi_platform.market.intervals import Interval, covers, holes, intersection, length, subtract, union


@dataclass(frozen=True)
class OverDeclared:
    """One declared hole of one market, and how much of it was not needed.

    `excess_us`: in all. `worst_us`: the worst at one place: before and after the losses together, or between two.
    """

    ticker: str
    hole: Interval
    excess_us: int
    worst_us: int


@dataclass(frozen=True)
class HoleAccount:
    """`true`: runs of consecutive missing deltas of one market; `undeclared` of them not wholly inside of holes.

    `declared_count`: (market, hole) pairs inside of the run; those at the ends only where something is missing.
    """

    true: int
    undeclared: int
    undeclared_rows: int
    declared_count: int
    excesses: Sequence[OverDeclared]

    @property
    def worst_excess_us(self) -> int:
        """The most that was declared without need at one place of one market."""
        return max((each.worst_us for each in self.excesses), default=0)

    @property
    def total_excess_us(self) -> int:
        """Microseconds that were declared lost without need, over all holes."""
        return sum(each.excess_us for each in self.excesses)


def united(by_gatherer: Mapping[str, Claims]) -> dict[str, list[Interval]]:
    """The union of all gatherers' claims, by market."""
    found: dict[str, list[Interval]] = {}
    for of_gatherer in by_gatherer.values():
        for ticker, intervals in of_gatherer.items():
            found.setdefault(ticker, []).extend(intervals)
    return {ticker: union(intervals) for ticker, intervals in found.items()}


@dataclass(frozen=True)
class CoverageFound:
    """What production states against what the gatherers' ledgers give: µs, and markets concerned.

    `beyond`: stated, and claimed by no ledger. `short`: claimed by a ledger, and not stated.
    """

    stated_us: int
    beyond_us: int
    short_us: int
    beyond: tuple[str, ...]
    short: tuple[str, ...]


def compare_coverage(stated: Claims, claimed: Claims) -> CoverageFound:
    """Compare production's coverage with the union of the gatherers' claims."""
    beyond = {ticker: length(subtract(parts, claimed.get(ticker, []))) for ticker, parts in stated.items()}
    short = {ticker: length(subtract(parts, stated.get(ticker, []))) for ticker, parts in claimed.items()}
    return CoverageFound(
        stated_us=sum(length(parts) for parts in stated.values()),
        beyond_us=sum(beyond.values()),
        short_us=sum(short.values()),
        beyond=tuple(sorted(ticker for ticker, us in beyond.items() if us)),
        short=tuple(sorted(ticker for ticker, us in short.items() if us)),
    )


def claimed_losses(claims: Claims, lost: pl.DataFrame) -> tuple[int, tuple[str, ...]]:
    """Of the deltas that a gatherer did not store (ticker, exchange_us): how many it claims all the same, of whom."""
    rows, of = 0, []
    for ticker, moments in lost.group_by("ticker").agg("exchange_us").sort("ticker").iter_rows():
        claimed = sum(covers(claims.get(ticker, []), moment) for moment in moments)
        rows += claimed
        if claimed:
            of.append(ticker)
    return rows, tuple(of)


def account(
    claims: Claims,
    lives: Mapping[str, Interval],
    truth: Iterable[pl.DataFrame],
    missing: pl.DataFrame,
    needed: Sequence[Claims],
    margin_us: int,
) -> HoleAccount:
    """Account for the holes of one run.

    `claims`: what production states. `lives`: from when to when each market could move inside of the run. `truth`:
    ticker, exchange_us of every published delta, in parts of time, the earlier part first; `missing` those that are
    lost, in natural columns. `needed`: per gatherer what it truly lost. `margin_us` is left out at both ends of a
    life.
    """
    true, undeclared, rows = _true_holes(claims, truth, missing)
    common_losses = lost_by_all(needed)
    excesses: list[OverDeclared] = []
    lost_of = dict(missing.group_by("ticker").agg(pl.col("exchange_us").sort()).iter_rows())
    declared = 0
    for ticker, (start, end) in lives.items():
        inside = (start + margin_us, end - margin_us)
        for low, high in holes(claims.get(ticker, []), (start, end)):
            is_inside = low < inside[1] and high > inside[0]
            declared += is_inside or any(low <= moment < high for moment in lost_of.get(ticker, ()))
        common = common_losses.get(ticker, []) if needed else [ALWAYS]
        if inside[0] < inside[1]:
            excesses += [
                _excess(ticker, hole, intersection([hole], common)) for hole in holes(claims.get(ticker, []), inside)
            ]
    return HoleAccount(true, undeclared, rows, declared, excesses)


def _excess(ticker: str, hole: Interval, needed: Sequence[Interval]) -> OverDeclared:
    outside = ends = between = 0
    for low, high in subtract([hole], list(needed)):
        length = high - low
        outside += length
        if low == hole[0] or high == hole[1]:
            ends += length
        else:
            between = max(between, length)
    return OverDeclared(ticker, hole, outside, max(ends, between))


def _true_holes(claims: Claims, truth: Iterable[pl.DataFrame], missing: pl.DataFrame) -> tuple[int, int, int]:
    """(runs of missing deltas, those with a row outside of every hole, such rows)."""
    if missing.is_empty():
        return 0, 0, 0
    key = ["ticker", "exchange_us"]
    lost = missing.group_by(key).agg(pl.len().alias("_lost"))
    true = undeclared = rows = 0
    # Markets in the middle of a run of missing rows, and whether a row of that run was claimed.
    in_run: dict[str, bool] = {}
    for part in truth:
        concerned = part.select(key).join(lost.select("ticker").unique(), on="ticker", how="semi").unique()
        moments = concerned.sort("exchange_us", "ticker").join(lost, on=key, how="left", maintain_order="left")
        for ticker, moment, count in moments.iter_rows():
            if count is None:
                in_run.pop(ticker, None)
                continue
            if ticker not in in_run:
                true += 1
                in_run[ticker] = False
            if covers(claims.get(ticker, []), moment):
                rows += count
                undeclared += not in_run[ticker]
                in_run[ticker] = True
    return true, undeclared, rows
