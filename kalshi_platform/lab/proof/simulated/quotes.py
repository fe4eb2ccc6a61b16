"""processed/quotes against the best prices of a naive fold of everything the exchange published."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import polars as pl

from kalshi_platform.lab.proof.comparison.truth import ALL_TIME, Truth
from kalshi_platform.lab.proof.simulated.findings import Compared
from kalshi_platform.lab.proof.simulated.plain import scan
from kalshi_platform.market.times import us_from_datetime

ONE_DOLLAR_E4 = 10_000


class Quote(NamedTuple):
    """Best yes bid and ask with their sizes; None for an empty side."""

    bid_e4: int | None
    bid_e2: int | None
    ask_e4: int | None
    ask_e2: int | None


class Row(NamedTuple):
    """A quote that holds from the end of `us` on."""

    us: int
    quote: Quote


EMPTY = Quote(None, None, None, None)


def naive_quotes(truth: Truth) -> Iterator[tuple[str, list[Row]]]:
    """Yield every market's quotes, a row per change; the first row is that of the book before everything (time 0)."""
    first: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
    for ticker, side, price, count in truth.first_books.select("ticker", "side", "price_e4", "count_e2").iter_rows():
        first.setdefault(ticker, ({}, {}))[side == "no"][price] = count
    deltas = truth.deltas(ALL_TIME).sort("ticker", "n").select("ticker", "exchange_us", "side", "price_e4", "delta_e2")
    moved = set()
    for ticker, of_market in groupby(deltas.iter_rows(), key=itemgetter(0)):
        moved.add(ticker)
        book = first.get(ticker, ({}, {}))
        rows = [Row(0, _best(book))]
        for us, of_moment in groupby(of_market, key=itemgetter(1)):
            for _, _, side, price, change in of_moment:
                levels = book[side == "no"]
                levels[price] = levels.get(price, 0) + change
                if not levels[price]:
                    del levels[price]
            quote = _best(book)
            if quote != rows[-1].quote:
                rows.append(Row(us, quote))
        yield ticker, rows
    yield from ((ticker, [Row(0, _best(book))]) for ticker, book in first.items() if ticker not in moved)


def _best(book: tuple[dict[int, int], dict[int, int]]) -> Quote:
    yes, no = book
    bid, other = max(yes, default=None), max(no, default=None)
    return Quote(
        bid,
        None if bid is None else yes[bid],
        None if other is None else ONE_DOLLAR_E4 - other,
        None if other is None else no[other],
    )


def compare_quotes(lake_folder: Path, truth: Truth, day: datetime) -> Compared:
    """Compare, wherever the lake calls a book known: the same quotes at the same times, and no others."""
    end_us = us_from_datetime(day + timedelta(days=1))
    stored = (
        scan(lake_folder, "processed/quotes", day)
        .select(
            "ticker",
            pl.col("exchange_ts").dt.epoch("us").alias("us"),
            pl.col("event").cast(pl.String),
            *(
                (pl.col(name).cast(pl.Decimal(38, 6)) * scale).cast(pl.Int64)
                for name, scale in (
                    ("bid_dollars", 10_000), ("bid_contracts", 100), ("ask_dollars", 10_000), ("ask_contracts", 100),
                )
            ),
        )
        .collect()
        .sort("ticker", "us")
    )  # fmt: skip
    of_market = {str(key[0]): rows for key, rows in stored.partition_by("ticker", as_dict=True).items()}
    known_us, compared, wrong = 0, 0, []
    listed = {ticker: [Row(0, EMPTY)] for ticker in truth.markets["ticker"].to_list()}
    for ticker, true in (listed | dict(naive_quotes(truth))).items():
        rows = of_market.pop(ticker, None)
        if rows is None:
            continue
        for low, high, found in known_spans(rows.iter_rows(), end_us):
            compared += len(found)
            known_us += high - low
            if found != true_rows(true, low, high):
                wrong.append(f"{ticker} from {low} to {high} µs")
    problems = []
    if wrong:
        problems.append(f"quotes of {len(wrong)} spans differ from a naive fold: {'; '.join(wrong[:3])}")
    if of_market:
        problems.append(f"quotes of {len(of_market)} markets that there never were: {', '.join(sorted(of_market)[:3])}")
    if not compared:
        problems.append("there are no quotes")
    figures = {"quotes": compared, "market hours known": round(known_us / 3.6e9, 1)}
    return Compared("quotes against a naive fold", figures, tuple(problems))


def known_spans(rows: Iterator[tuple[object, ...]], end_us: int) -> Iterator[tuple[int, int, list[Row]]]:
    """Yield (from, until, quotes) of the spans in which a market's book is known, from its rows in order of time."""
    span: list[Row] = []
    for _, us, event, *values in rows:
        assert isinstance(us, int)  # noqa: S101 - as selected
        if event in ("hole", "resync") and span:
            yield span[0].us, us, span
            span = []
        if event != "hole":
            span.append(Row(us, Quote(*values)))  # type: ignore[arg-type]
    if span:
        yield span[0].us, end_us, span


def true_rows(true: Sequence[Row], low: int, high: int) -> list[Row]:
    """Return the quotes of [low, high): the one in force at the end of `low`, then every change before `high`."""
    times = [row.us for row in true]
    start, stop = bisect_right(times, low), bisect_left(times, high)
    return [Row(low, true[start - 1].quote), *true[start:stop]]
