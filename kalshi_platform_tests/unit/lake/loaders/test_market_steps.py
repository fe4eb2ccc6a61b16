"""Steps of a market: wherever a book is known they lead to the reader's, and nothing else changes it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kalshi_platform.errors import HoleInRange
from kalshi_platform.lake.loaders.market_steps import (
    BookGiven,
    BookLost,
    Level,
    LevelsChanged,
    Traded,
    fold_events,
    market_steps,
)
from kalshi_platform.lake.reader import BookKnown, Delta, Event, HoleBegins, MarketBook
from kalshi_platform.lake.reader.source import make_source
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform_tests.unit.lake.loaders.world import END, HOLE_FROM, HOLE_TO, START, TICKER, World, yes_levels


def test_the_steps_of_a_range_lead_to_the_books_of_the_reader(world: World) -> None:
    book: dict[Level, int] = {}
    compared = 0
    steps = list(market_steps(make_source(world.store), TICKER, START, END))
    for step in steps:
        if isinstance(step, BookGiven):
            book = dict(step.levels)
        elif isinstance(step, LevelsChanged):
            for level, before, size in step.changes:
                assert book.get(level, 0) == before != size
                book[level] = size
            compared += 1
            if compared % 7 == 0:
                known = {level: size for level, size in book.items() if size}
                assert known == yes_levels(world.store, datetime_from_us(step.ts_us))
    assert compared > 100
    others = [(type(step), datetime_from_us(step.ts_us)) for step in steps if not isinstance(step, LevelsChanged)]
    assert [each for each in others if each[0] is not Traded] == [
        (BookGiven, START), (BookLost, HOLE_FROM), (BookGiven, HOLE_TO),
    ]  # fmt: skip
    assert not [step for step in steps if isinstance(step, LevelsChanged) and _in_hole(step)]
    assert [step.values["taker_side"] for step in steps if isinstance(step, Traded)] == ["yes", "no", "no", None]


def _in_hole(step: LevelsChanged) -> bool:
    return us_from_datetime(HOLE_FROM) <= step.ts_us <= us_from_datetime(HOLE_TO)


def test_block_trades_are_steps_where_they_are_wanted(world: World) -> None:
    steps = market_steps(make_source(world.store), TICKER, START, END, block_trades=True)
    assert [step.values["is_block_trade"] for step in steps if isinstance(step, Traded)] == [
        False, False, True, False, False,
    ]  # fmt: skip


def test_a_range_that_must_be_whole_is_refused_over_a_hole(world: World) -> None:
    with pytest.raises(HoleInRange):
        list(market_steps(make_source(world.store), TICKER, START, END, holes="raise"))
    whole = market_steps(make_source(world.store), TICKER, HOLE_TO + timedelta(minutes=1), END, holes="raise")
    assert not [step for step in whole if isinstance(step, BookLost)]


def test_changes_of_one_moment_are_one_step_in_which_levels_shrink_first() -> None:
    market = MarketBook("A")
    events: list[Event] = [
        Delta(5, market, "no", 4_000, 100, 100),  # an ask at 6,000, which the bid that goes would cross
        Delta(5, market, "yes", 6_100, -50, 0),
        Delta(5, market, "yes", 5_000, 70, 70),
        Delta(5, market, "yes", 5_000, -70, 0),
    ]
    steps = list(fold_events(0, {("bid", 6_100): 50}, events))
    assert steps == [
        BookGiven(0, ((("bid", 6_100), 50),)),
        LevelsChanged(5, ((("bid", 6_100), 50, 0), (("ask", 6_000), 0, 100))),
    ]


def test_a_size_below_zero_loses_the_book_until_it_is_known_again() -> None:
    market = MarketBook("A")
    market.yes[4_000] = 9
    events: list[Event] = [
        Delta(5, market, "yes", 5_000, -70, -70),
        Delta(6, market, "yes", 5_000, 100, 30),
        BookKnown(7, market),
        BookKnown(8, market),
        HoleBegins(9, market, 12, "not covered"),
        HoleBegins(10, market, 12, "not covered"),
    ]
    steps = list(fold_events(0, {("bid", 5_000): 50}, events))
    assert steps[1:] == [BookLost(5), BookGiven(7, ((("bid", 4_000), 9),)), BookLost(9)]
