"""The book fold: order-free at its end, exact at the end of every timestamp, honest about negative levels."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.market.records import Levels
from kalshi_platform_tests.fixtures.reference_book import Book, LevelChange, books, fold

SIDES = st.sampled_from(["yes", "no"])
CHANGES = st.lists(
    st.builds(LevelChange, st.integers(1, 6), SIDES, st.integers(1, 5).map(lambda p: p * 100), st.integers(-300, 300)),
    max_size=30,
)
LADDERS = st.dictionaries(st.integers(1, 5).map(lambda p: p * 100), st.integers(1, 500), max_size=5).map(
    lambda levels: tuple(sorted(levels.items()))
)


@given(LADDERS, LADDERS, CHANGES, st.randoms(use_true_random=False))
def test_the_end_of_a_fold_does_not_depend_on_the_order(yes: Levels, no: Levels, changes: list, random) -> None:  # type: ignore[no-untyped-def,type-arg]
    shuffled = list(changes)
    random.shuffle(shuffled)
    one, other = fold(yes, no, changes), fold(yes, no, shuffled)
    assert (one.yes, one.no) == (other.yes, other.no)


@given(LADDERS, LADDERS, CHANGES)
def test_a_fold_is_the_sum_per_level(yes: Levels, no: Levels, changes: list[LevelChange]) -> None:
    expected = Counter({("yes", price): count for price, count in yes})
    expected.update({("no", price): count for price, count in no})
    for change in changes:
        expected[change.side, change.price_e4] += change.delta_e2
    book = fold(yes, no, changes)
    folded = {("yes", price): count for price, count in book.yes} | {("no", price): count for price, count in book.no}
    assert folded == {key: count for key, count in expected.items() if count}
    assert set(book.negative_levels) == {key for key, count in expected.items() if count < 0}


@given(LADDERS, LADDERS, CHANGES)
def test_books_are_those_at_the_ends_of_timestamps(yes: Levels, no: Levels, changes: list[LevelChange]) -> None:
    ascending = sorted(changes, key=lambda change: change.exchange_ts_us)
    seen = list(books(yes, no, ascending))
    assert [book.exchange_ts_us for book in seen] == sorted({change.exchange_ts_us for change in changes})
    for book in seen:
        until = fold(yes, no, [change for change in ascending if change.exchange_ts_us <= book.exchange_ts_us])
        assert (book.yes, book.no, book.negative) == (until.yes, until.no, until.negative_levels)


def test_apply_returns_the_new_size_and_drops_empty_levels() -> None:
    book = Book([(5600, 100)])
    assert book.apply("yes", 5600, -40) == 60
    assert book.apply("yes", 5600, -60) == 0
    assert book.yes == ()
    assert book.apply("no", 100, -1) == -1
    assert book.negative_levels == (("no", 100),)
    book.replace([(1, 2)], [])
    assert [book.yes, book.no, book.negative_levels] == [((1, 2),), (), ()]
