"""Sorting by buckets is sorting."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.export.external_sort import external_sort
from kalshi_platform_tests.fixtures.lake import HOUR, row

DATA = replace(DATASETS["raw/orderbook_deltas"], rows_per_group=8)
TICKERS = ("", "KXA-1", "KXA-10", "KXB", "a", "z", "Ü", "ü", "字")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(TICKERS), st.integers(0, 3), st.sampled_from(["no", "yes"])), max_size=60),
    st.integers(1, 7),
)
def test_rows_come_out_in_the_order_of_the_data_set(drawn: list[tuple[str, int, str]], size: int) -> None:
    rows: list[dict[str, Any]] = [
        row(DATA, HOUR + timedelta(seconds=second), ticker=ticker, side=side, occurrence=number)
        for number, (ticker, second, side) in enumerate(drawn)
    ]
    batches = [pa.RecordBatch.from_pylist(rows[at : at + size], schema=DATA.schema) for at in range(0, len(rows), size)]
    with tempfile.TemporaryDirectory() as folder:
        counts = Counter(ticker for ticker, _, _ in drawn)
        found = [
            item for piece in external_sort(iter(batches), DATA, counts, Path(folder)) for item in piece.to_pylist()
        ]
        assert list(Path(folder).iterdir()) == []

    def key(item: dict[str, Any]) -> list[Any]:
        return [item[name].encode() if isinstance(item[name], str) else item[name] for name in DATA.order]

    assert found == sorted(rows, key=key)


def test_a_bucket_is_no_more_than_it_may_be_unless_one_market_is(tmp_path: Path) -> None:
    sizes = {"A": 1, "B": 1, "C": 1, "D": 5, "E": 2}
    rows = [row(DATA, HOUR, ticker=ticker, occurrence=n) for ticker, size in sizes.items() for n in range(size)]
    batches = [pa.RecordBatch.from_pylist(rows, schema=DATA.schema)]
    assert [piece.num_rows for piece in external_sort(batches, DATA, sizes, tmp_path)] == [2, 1, 5, 2]


def test_a_market_that_was_not_counted_is_an_error(tmp_path: Path) -> None:
    rows = [row(DATA, HOUR, ticker=ticker) for ticker in ("A", "B", "C")]
    batches = [pa.RecordBatch.from_pylist(rows, schema=DATA.schema)]
    with pytest.raises(LakeCorrupt, match="not counted"):
        list(external_sort(batches, DATA, {"A": 2, "B": 2}, tmp_path))
