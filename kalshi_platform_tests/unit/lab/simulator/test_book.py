from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.lab.simulator.engine.book import Book, BookViolation

CHANGES = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([100, 150, 4_200, 9_900]), st.integers(-500, 500).filter(bool))
)


@given(CHANGES)
def test_a_level_is_the_sum_of_its_changes_and_never_negative(changes: list[tuple[int, int, int]]) -> None:
    book = Book()
    sums: dict[tuple[int, int], int] = {}
    for side, price, delta in changes:
        if sums.get((side, price), 0) + delta < 0:
            with pytest.raises(BookViolation):
                book.apply(side, price, delta)
        else:
            book.apply(side, price, delta)
            sums[side, price] = sums.get((side, price), 0) + delta
    for side in (0, 1):
        expected = {price: size for (own, price), size in sums.items() if own == side and size}
        assert book.levels[side] == expected
        assert book.best[side] == max(expected, default=0)


def test_a_price_outside_the_open_interval_is_refused() -> None:
    with pytest.raises(BookViolation):
        Book().apply(0, 10_000, 100)


def test_top_of_an_empty_book_is_all_zeros() -> None:
    assert Book().top() == (0, 0, 0, 0)
