"""Books of random markets at random moments, as the exchange had them, against what the lake alone gives."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import polars as pl

from kalshi_platform.config import PlatformSettings
from kalshi_platform.lab.proof.comparison.truth import ALL_TIME, Truth
from kalshi_platform.lab.proof.simulated.findings import Compared
from kalshi_platform.lab.proof.simulated.plain import scan
from kalshi_platform.lake.reader.books import find_book
from kalshi_platform.market.times import datetime_from_us, us_from_datetime

Levels: TypeAlias = dict[tuple[str, int], int]
"""(side, price_e4) → 1/100 contracts."""
LEAST_EXACT = 0.95
SUBSCRIBED_S = 2.0
"""Of the machine: by then a newborn market is subscribed, also by a busy one."""


class TrueBooks:
    """The books of the exchange at any moment, by its ledger: the first ones plus the deltas of up to the moment."""

    def __init__(self, truth: Truth) -> None:
        deltas = truth.deltas(ALL_TIME).select("ticker", "exchange_us", "side", "price_e4", "delta_e2")
        self._deltas: Mapping[str, pl.DataFrame] = {
            str(key[0]): rows for key, rows in deltas.partition_by("ticker", as_dict=True).items()
        }
        first = truth.first_books.select("ticker", "side", "price_e4", delta_e2="count_e2")
        self._first = {str(key[0]): rows for key, rows in first.partition_by("ticker", as_dict=True).items()}

    def at(self, ticker: str, moment_us: int) -> Levels:
        """Return the levels of a book at the end of a microsecond."""
        parts = [
            rows.select("side", "price_e4", "delta_e2")
            for rows in (
                self._first.get(ticker),
                self._deltas[ticker].filter(pl.col("exchange_us") <= moment_us) if ticker in self._deltas else None,
            )
            if rows is not None
        ]
        if not parts:
            return {}
        summed = pl.concat(parts).group_by("side", "price_e4").agg(pl.col("delta_e2").sum())
        return levels_of(summed.select("side", "price_e4", count_e2="delta_e2"))


def levels_of(rows: pl.DataFrame) -> Levels:
    """Return rows of `side, price_e4, count_e2` as levels, without the empty ones."""
    return {(side, int(price)): int(count) for side, price, count in rows.iter_rows() if count}


@dataclass(frozen=True)
class Sample:
    """A market and a moment of its life."""

    ticker: str
    at: datetime

    @property
    def us(self) -> int:
        """The moment in µs."""
        return us_from_datetime(self.at)


def samples(truth: Truth, begin: datetime, end: datetime, count: int, seed: int, pace: float = 1.0) -> list[Sample]:
    """Return random moments of random markets that were open then, newborn ones for a while already.

    Gatherers subscribe a market a minute before it opens, which at a high pace is too short for a busy machine.
    """
    pick = random.Random(seed)  # noqa: S311 - repeatable, not secret
    low, high = us_from_datetime(begin), us_from_datetime(end)
    late_us = round(SUBSCRIBED_S * pace * 1e6)
    spans = (
        (ticker, low if opened < low else opened + late_us, min(high, closed))
        for ticker, opened, closed in truth.markets.sort("ticker").iter_rows()
    )
    lives = [(ticker, first, last) for ticker, first, last in spans if first < last]
    chosen = (pick.choice(lives) for _ in range(count))
    return [Sample(ticker, datetime_from_us(pick.randrange(opened, closed))) for ticker, opened, closed in chosen]


def compare_book_at(
    settings: PlatformSettings, books: TrueBooks, wanted: Sequence[Sample]
) -> tuple[Compared, list[Sample]]:
    """Compare the reader's books with the exchange's: equal, or declared not exact; and most are exact.

    Returns the samples that are exact, too.
    """
    exact, inexact_right, inexact_wrong, unknown, wrong = [], 0, 0, 0, []
    for sample in wanted:
        book = find_book(settings.lake, sample.ticker, sample.at)
        if book.state == "unknown":
            unknown += 1
            continue
        is_right = levels_of(book.levels.select("side", "price_e4", "count_e2")) == books.at(sample.ticker, sample.us)
        if book.exact:
            exact.append(sample)
            if not is_right:
                wrong.append(f"{sample.ticker} at {sample.at.isoformat()}")
        elif is_right:
            inexact_right += 1
        else:
            inexact_wrong += 1
    problems = []
    if wrong:
        problems.append(
            f"{len(wrong)} books are called exact and are not those of the exchange: {'; '.join(wrong[:3])}"
        )
    if len(exact) < LEAST_EXACT * len(wanted):
        problems.append(f"only {len(exact)} of {len(wanted)} books are exact; {LEAST_EXACT:.0%} are wanted")
    figures = {
        "books": len(wanted), "exact": len(exact), "not exact but right": inexact_right,
        "not exact and not right": inexact_wrong, "unknown": unknown,
    }  # fmt: skip
    return Compared("book_at against the exchange", figures, tuple(problems)), exact


def compare_book_deltas(
    lake_folder: Path, books: TrueBooks, exact: Sequence[Sample], day: datetime, count: int
) -> Compared:
    """Sum processed/book_deltas by plain Polars up to moments of the day, where the reader's books are exact."""
    chosen = [sample for sample in exact if day <= sample.at < day + timedelta(days=1)][:count]
    wrong = []
    for sample in chosen:
        summed = (
            scan(lake_folder, "processed/book_deltas", day)
            .filter((pl.col("ticker") == sample.ticker) & (pl.col("exchange_ts") <= sample.at))
            .group_by("side", "price_dollars")
            .agg(pl.col("delta_contracts").sum())
            .collect()
        )
        levels = levels_of(
            summed.select(
                pl.col("side").cast(pl.String),
                (pl.col("price_dollars").cast(pl.Decimal(38, 6)) * 10_000).cast(pl.Int64),
                (pl.col("delta_contracts").cast(pl.Decimal(38, 6)) * 100).cast(pl.Int64),
            )
        )
        if levels != books.at(sample.ticker, sample.us):
            wrong.append(f"{sample.ticker} at {sample.at.isoformat()}")
    problems = [f"{len(wrong)} sums are not the exchange's book: {'; '.join(wrong[:3])}"] if wrong else []
    if not chosen:
        problems.append("no book of the day is exact")
    return Compared("processed/book_deltas by plain Polars", {"books": len(chosen)}, tuple(problems))
