"""Folding from arrays gives the books that folding delta by delta gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.market import fold
from kalshi_platform.market.fold import BookTable, Changes, books_at
from kalshi_platform_tests.fixtures.reference_book import LevelChange
from kalshi_platform_tests.fixtures.reference_book import fold as simple_fold

Delta = tuple[int, int, int, int, int]
deltas_of = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 1), st.sampled_from((0, 100, 4_000, 10_000)), st.integers(-300, 300),
        st.integers(0, 60),
    ),
    max_size=60,
)  # fmt: skip
levels_of = st.dictionaries(
    st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from((100, 4_000, 4_010, 4_011))), st.integers(1, 500)
)


def changes(rows: list[tuple[int, ...]]) -> Changes:
    columns = np.array(rows, dtype=np.int64).reshape(len(rows), 4)
    return Changes(*(columns[:, number] for number in range(4)))


def table_of(levels: dict[tuple[int, int, int], int], deltas: list[Delta], moments: list[int]) -> BookTable:
    times = np.array([row[4] for row in deltas], dtype=np.int64)
    start = changes([(*level, size) for level, size in levels.items()])
    return books_at(start, changes([row[:4] for row in deltas]), times, np.array(moments, dtype=np.int64))


@pytest.mark.parametrize("cells", [1 << 25, 1])  # all lines at once, one after the other
@given(levels=levels_of, deltas=deltas_of, moments=st.lists(st.integers(-1, 61), max_size=5).map(sorted))
def test_every_book_is_the_one_of_the_simple_fold(
    cells: int, levels: dict[tuple[int, int, int], int], deltas: list[Delta], moments: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "_TABLE_CELLS", cells)
        table = table_of(levels, deltas, moments)
    assert table.sizes.shape == (len(moments), len(table.line))
    keys = list(zip(table.line.tolist(), table.side.tolist(), table.price_e4.tolist(), strict=True))
    assert keys == sorted(set(keys))
    for number, moment in enumerate(moments):
        for line in range(5):
            yes, no = (
                tuple((price, size) for (of, at, price), size in levels.items() if (of, at) == (line, side))
                for side in (0, 1)
            )
            until = [
                LevelChange(time, "no" if side else "yes", price, size)
                for of, side, price, size, time in deltas
                if of == line and time <= moment
            ]
            book = simple_fold(yes, no, until)
            for side, expected in ((0, book.yes), (1, book.no)):
                mine = (table.line == line) & (table.side == side) & (table.sizes[number] != 0)
                found = zip(table.price_e4[mine].tolist(), table.sizes[number][mine].tolist(), strict=True)
                assert tuple(found) == expected


def test_sizes_beyond_the_exact_range_of_doubles_stay_exact() -> None:
    big = 2**53 + 1
    table = table_of({}, [(0, 0, 5_000, big, 1), (0, 0, 5_000, -2, 2)], [1, 2])
    assert table.sizes[:, 0].tolist() == [big, big - 2]


@pytest.mark.parametrize("price", [-1, 10_001])
def test_a_price_that_no_contract_has_is_refused(price: int) -> None:
    with pytest.raises(ValueError, match="price"):
        table_of({}, [(0, 0, price, 1, 1)], [1])
