"""Builders of books, fed in any pieces, against a naive fold of the whole day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.lake.builders.book_deltas import BookDeltas
from kalshi_platform.lake.builders.book_inputs import BOOK_INPUTS, CHECKPOINTS, COVERAGE, DELTAS
from kalshi_platform.lake.builders.book_periods import BookPeriods
from kalshi_platform.lake.builders.builder import Builder, HourRows
from kalshi_platform.lake.builders.quotes import Quotes
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.market.times import US_PER_HOUR, us_from_datetime
from kalshi_platform_tests.fixtures.naive_books import Book, Market, NaiveDay

DAY_US = us_from_datetime(datetime(2026, 11, 20, tzinfo=UTC))
HOURS = 2
LENGTH_US = HOURS * US_PER_HOUR
TICKERS = ("KXA", "KXB", "KXÜ")
PERIOD_US = US_PER_HOUR // 8

# Few moments, around the edges of hours and periods, so that things meet.
_EDGES = [edge for hour in range(-1, HOURS + 1) for edge in (hour * US_PER_HOUR - 1, hour * US_PER_HOUR)]
_NEAR = [
    hour * US_PER_HOUR + part for hour in range(-1, HOURS) for part in (1, PERIOD_US, PERIOD_US + 1, 2_000_000_000)
]
MOMENTS = st.sampled_from(sorted(each for each in {*_EDGES, *_NEAR} if -US_PER_HOUR <= each < LENGTH_US))
SIDES = st.sampled_from(["yes", "no"])
PRICES = st.integers(1, 14).map(lambda cents: cents * 100)
BOOKS: st.SearchStrategy[Book] = st.dictionaries(st.tuples(SIDES, PRICES), st.integers(1, 9), max_size=14)


@st.composite
def markets(draw: st.DrawFn) -> Market:
    changes = draw(st.lists(st.tuples(MOMENTS, SIDES, PRICES, st.integers(-9, 9).filter(bool)), max_size=12))
    checkpoints = sorted(draw(st.lists(st.tuples(MOMENTS, BOOKS), max_size=4)), key=lambda item: item[0])
    bounds = sorted(draw(st.sets(st.one_of(MOMENTS, MOMENTS.map(lambda at: at + 1)), max_size=6)))
    coverage = []
    for low, high in zip(bounds[::2], bounds[1::2], strict=False):
        # Production cuts ranges at hours; those that touch are one.
        cuts = [edge for edge in range(-US_PER_HOUR, LENGTH_US + 1, US_PER_HOUR) if low < edge < high]
        coverage += list(zip([low, *cuts], [*cuts, high], strict=True))
    return Market(sorted(changes), checkpoints, coverage)


EXAMPLES = 20
WORLDS = st.lists(markets(), min_size=1, max_size=len(TICKERS))
CUTS = st.sets(MOMENTS, max_size=3)


def frames(world: Sequence[Market], low: int, high: int) -> dict[str, pl.DataFrame]:
    """What the engine gives of [low, high)."""
    kinds = pl.Enum(TICKERS[: len(world)])
    time = pl.Datetime("us", "UTC")
    deltas: list[tuple[Any, ...]] = []
    checkpoints: list[tuple[Any, ...]] = []
    coverage: list[tuple[Any, ...]] = []
    for ticker, market in zip(TICKERS, world, strict=False):
        deltas += [(ticker, DAY_US + at, *rest) for at, *rest in market.deltas if low <= at < high]
        coverage += [(ticker, DAY_US + start, DAY_US + to) for start, to in market.coverage if low <= start < high]
        for at, book in market.checkpoints:
            if low <= at < high:
                sides = [
                    sorted((p, size) for (each, p), size in book.items() if each == side) for side in ("yes", "no")
                ]
                lists = [[level[place] for level in side] for side in sides for place in (0, 1)]
                checkpoints.append((ticker, DAY_US + at, *lists))
    levels = [pl.List(pl.Int32), pl.List(pl.Int64)] * 2
    schemas: dict[str, list[Any]] = {
        DELTAS: [kinds, time, pl.Categorical, pl.Int32, pl.Int64],
        CHECKPOINTS: [kinds, time, *levels],
        COVERAGE: [kinds, time, time],
    }
    rows = {DELTAS: deltas, CHECKPOINTS: checkpoints, COVERAGE: coverage}
    return {
        key: pl.DataFrame(rows[key], schema=dict(zip(BOOK_INPUTS[key], schema, strict=True)), orient="row")
        for key, schema in schemas.items()
    }


def run(builder: Builder, world: Sequence[Market], cuts: set[int]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each market, times from the start of the day."""
    given: list[tuple[Any, ...]] = []
    for hour in range(-1, HOURS):
        low, high = hour * US_PER_HOUR, (hour + 1) * US_PER_HOUR
        inner = sorted(cut for cut in cuts if low < cut < high)
        for start, end in zip([low, *inner], [*inner, high], strict=True):
            piece = HourRows(DAY_US + start, DAY_US + end, hour >= 0, frames(world, start, end))
            found = builder.add(piece)
            if found.height:
                given += found.with_columns(pl.col(found.columns[1]).to_physical() - DAY_US).rows()
    assert builder.finish().height == 0
    return {ticker: [row[1:] for row in given if row[0] == ticker] for ticker in TICKERS[: len(world)]}


def check(
    make: Callable[[], Builder], wanted: Callable[[NaiveDay], list[Any]], world: Sequence[Market], cuts: set[int]
) -> None:
    found = run(make(), world, cuts)
    for ticker, market in zip(TICKERS, world, strict=False):
        assert found[ticker] == wanted(NaiveDay(market)), ticker


@settings(max_examples=EXAMPLES)
@given(WORLDS, CUTS)
def test_changes_of_books_in_any_pieces_are_those_of_a_naive_fold(world: list[Market], cuts: set[int]) -> None:
    check(BookDeltas, lambda day: day.rows, world, cuts)


@settings(max_examples=EXAMPLES)
@given(WORLDS, CUTS)
def test_quotes_in_any_pieces_are_the_best_of_a_naive_fold(world: list[Market], cuts: set[int]) -> None:
    check(Quotes, lambda day: day.quotes(LENGTH_US), world, cuts)


@settings(max_examples=EXAMPLES)
@given(WORLDS, CUTS)
def test_books_of_periods_in_any_pieces_are_those_of_a_naive_fold(world: list[Market], cuts: set[int]) -> None:
    check(lambda: BookPeriods(PERIOD_US), lambda day: day.periods(LENGTH_US, PERIOD_US), world, cuts)


@settings(max_examples=EXAMPLES)
@given(markets())
def test_a_plain_sum_is_the_checkpoint_and_the_changes_after_it(market: Market) -> None:
    """What raw deltas and the newest checkpoint give by themselves: the rule of book_basis and book_at."""
    day = NaiveDay(market)
    rows = run(BookDeltas(), [market], set())[TICKERS[0]]
    for at in {at for at, _ in market.checkpoints} | {at for at, *_ in market.deltas}:
        before = [(when, book) for when, book in market.checkpoints if when <= at]
        if at < 0 or not before:
            continue
        newest = max(when for when, _ in before)
        book = dict(next(book for when, book in before if when == newest))
        for when, side, price, delta in market.deltas:
            if newest < when <= at:
                book[side, price] = book.get((side, price), 0) + delta
        summed: Book = {}
        for when, _, side, price, delta in rows:
            if when <= at:
                summed[side, price] = summed.get((side, price), 0) + delta
        assert {k: v for k, v in summed.items() if v} == {k: v for k, v in book.items() if v}
        assert day.book(at) == {k: v for k, v in book.items() if v > 0}


def test_columns_of_builders_are_those_of_their_data_sets() -> None:
    world = [Market([(1, "yes", 100, 5)], [(0, {("yes", 100): 5})], [(0, US_PER_HOUR)])]
    for key in ("processed/book_deltas", "processed/quotes", "processed/book_1s", "processed/book_1m"):
        data = DATASETS[key]
        assert data.builder is not None
        found = data.builder().add(HourRows(DAY_US, DAY_US + US_PER_HOUR, True, frames(world, 0, US_PER_HOUR)))
        assert found.columns == data.schema.names
        assert found.height
