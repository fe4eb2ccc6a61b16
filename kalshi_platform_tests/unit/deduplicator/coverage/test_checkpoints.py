"""The helper that finds the times of a feed gives the least of any range."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.deduplicator.coverage.checkpoints import range_min


@given(st.lists(st.integers(-50, 50), max_size=40), st.data())
def test_range_min_is_the_least_of_a_range(values: list[int], data: st.DataObject) -> None:
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, len(values)), st.integers(0, len(values))), min_size=1, max_size=10)
    )
    low, high = pl.Series([min(pair) for pair in pairs]), pl.Series([max(pair) for pair in pairs])
    found = range_min(pl.Series(values, dtype=pl.Int64), low, high).to_list()
    assert found == [min(values[a:b], default=None) for a, b in zip(low, high, strict=True)]
