"""`bench book`: a starting book and an hour of deltas per market → every minute's book, beside the naive way.

The platform folds columns as they come out of the database or a Parquet file, tickers as text; the naive way keeps a
dict per market and applies one delta after the other. Both must end with the same books, minute by minute.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from kalshi_platform.clock import Clock
from kalshi_platform.lab.bench.measure import peak_rss_mib
from kalshi_platform.lab.bench.result import machine, rounded, table
from kalshi_platform.market.fold import BookTable, Changes, books_at
from kalshi_platform.market.times import US_PER_HOUR

_MINUTES = 60
_LEVELS = 20
_MINUTE_US = US_PER_HOUR // _MINUTES
Book = dict[tuple[str, int], int]


@dataclass(frozen=True, kw_only=True)
class BookBench:
    """`deltas` of one hour over `markets`; the naive way folds about `naive_deltas`: all those of some markets."""

    deltas: int = 5_000_000
    naive_deltas: int = 250_000
    markets: int = 1_000
    rounds: int = 3
    seed: int = 1


def bench_book(options: BookBench, say: Callable[[str], None], clock: Clock) -> dict[str, Any]:
    """Run it; return the findings, with what came out wrong under `lost` (empty when all is well)."""
    say(f"making {options.deltas:,} deltas of {options.markets:,} markets")
    start, deltas = _made(options)
    few = start.get_column("ticker").unique(maintain_order=True).gather_every(_step(options))
    few_start, part = (frame.filter(pl.col("ticker").is_in(few.implode())) for frame in (start, deltas))
    lost: list[str] = []
    seconds: dict[str, list[float]] = {"platform": [], "naive": []}
    for number in range(1, options.rounds + 1):
        began = clock.monotonic()
        fold_columns(start, deltas)
        seconds["platform"].append(clock.monotonic() - began)
        began = clock.monotonic()
        slow = fold_naively(few_start, part)
        seconds["naive"].append(clock.monotonic() - began)
        say(
            f"round {number} of {options.rounds}: platform {options.deltas / seconds['platform'][-1]:,.0f} deltas/s,"
            f" naive {part.height / seconds['naive'][-1]:,.0f} deltas/s"
        )
        if _minutes_of(*fold_columns(few_start, part)) != slow:
            lost.append(f"round {number}: the books differ")
    rate = options.deltas / statistics.median(seconds["platform"])
    naive_rate = part.height / statistics.median(seconds["naive"])
    return {
        "benchmark": "book",
        "rate_per_s": rounded(rate, 0),
        "naive_rate_per_s": rounded(naive_rate, 0),
        "ratio": rounded(rate / naive_rate, 2),
        "peak_rss_mib": rounded(peak_rss_mib()),
        "lost": lost,
        "seconds": {who: [rounded(each, 4) for each in found] for who, found in seconds.items()},
        "deltas": options.deltas,
        "markets": options.markets,
        "books": options.markets * _MINUTES,
        "machine": machine(),
    }


def shown(findings: Mapping[str, Any]) -> str:
    """The findings as a table for people."""
    return table(
        ("", "deltas/s", "ratio", "peak MiB"),
        [
            ("naive", findings["naive_rate_per_s"], 1.0, None),
            ("platform", findings["rate_per_s"], findings["ratio"], findings["peak_rss_mib"]),
        ],
    )


def fold_columns(start: pl.DataFrame, deltas: pl.DataFrame) -> tuple[list[str], BookTable]:
    """Every minute's books by arrays; returns the tickers by line number as well.

    Frames: ticker, side, price_e4, count_e2 (start) or exchange_us and delta_e2 (deltas).
    """
    tickers = pl.Enum(start.get_column("ticker").unique(maintain_order=True))

    def columns(frame: pl.DataFrame, size: str) -> Changes:
        return Changes(
            frame.get_column("ticker").cast(tickers).to_physical().cast(pl.Int32).to_numpy(),
            (frame.get_column("side") == "no").cast(pl.Int8).to_numpy(),
            frame.get_column("price_e4").to_numpy(),
            frame.get_column(size).to_numpy(),
        )

    moments_us = np.arange(1, _MINUTES + 1, dtype=np.int64) * _MINUTE_US - 1
    times = deltas.get_column("exchange_us").to_numpy()
    table_ = books_at(columns(start, "count_e2"), columns(deltas, "delta_e2"), times, moments_us)
    return tickers.categories.to_list(), table_


def fold_naively(start: pl.DataFrame, deltas: pl.DataFrame) -> list[dict[str, Book]]:
    """Every minute's books by a dict per market, rows as plain tuples."""
    books: dict[str, Book] = {}
    for ticker, side, price_e4, count_e2 in start.select("ticker", "side", "price_e4", "count_e2").iter_rows():
        books.setdefault(ticker, {})[side, price_e4] = count_e2
    minutes: list[dict[str, Book]] = []
    columns = ("exchange_us", "ticker", "side", "price_e4", "delta_e2")
    for exchange_us, ticker, side, price_e4, delta_e2 in deltas.select(columns).iter_rows():
        while exchange_us >= (len(minutes) + 1) * _MINUTE_US:
            minutes.append({name: dict(book) for name, book in books.items()})
        book = books[ticker]
        level = side, price_e4
        size = book.get(level, 0) + delta_e2
        if size:
            book[level] = size
        else:
            book.pop(level, None)
    while len(minutes) < _MINUTES:
        minutes.append({name: dict(book) for name, book in books.items()})
    return minutes


def _minutes_of(tickers: list[str], found: BookTable) -> list[dict[str, Book]]:
    """A table of books in the naive way's shape."""
    sides = np.where(found.side == 0, "yes", "no").tolist()
    names = [tickers[line] for line in found.line.tolist()]
    levels = list(zip(names, sides, found.price_e4.tolist(), strict=True))
    minutes: list[dict[str, Book]] = []
    for sizes in found.sizes.tolist():
        books: dict[str, Book] = {ticker: {} for ticker in tickers}
        for (ticker, side, price), size in zip(levels, sizes, strict=True):
            if size:
                books[ticker][side, price] = size
        minutes.append(books)
    return minutes


def _step(options: BookBench) -> int:
    return min(options.markets, max(1, round(options.deltas / options.naive_deltas)))


def _made(options: BookBench) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return starting books, and deltas of one hour in order of time.

    Their sizes are random: some levels fall below zero, which costs a fold nothing.
    """
    generator = np.random.default_rng(options.seed)
    names = [f"KXBENCH-26NOV23-T{number:05d}" for number in range(options.markets)]
    levels = [(side, 100 * price) for side in ("yes", "no") for price in range(40, 40 + _LEVELS)]
    start = pl.DataFrame(
        {
            "ticker": [name for name in names for _ in levels],
            "side": [side for _ in names for side, _ in levels],
            "price_e4": [price for _ in names for _, price in levels],
            "count_e2": generator.integers(1_000, 1_000_000, options.markets * len(levels)),
        }
    )
    market = (options.markets * generator.random(options.deltas) ** 3).astype(np.int64)
    deltas = pl.DataFrame(
        {
            "exchange_us": np.sort(generator.integers(0, US_PER_HOUR, options.deltas)),
            "ticker": pl.Series(names).gather(market),
            "side": pl.Series(["yes", "no"]).gather(generator.integers(0, 2, options.deltas)),
            "price_e4": (100 * generator.integers(1, 100, options.deltas)).astype(np.int32),
            "delta_e2": generator.integers(1, 5_000, options.deltas)
            * (2 * generator.integers(0, 2, options.deltas) - 1),
        }
    )
    return start, deltas
