"""Sorting records stretch by stretch is sorting, whatever a market has."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.export.record_sort import CountedTicker, can_sort, sort_records
from kalshi_platform.market.times import US_PER_HOUR, us_from_datetime
from kalshi_platform.storage.fixed_rows import Records, has_fixed_width, record_type
from kalshi_platform_tests.fixtures.lake import HOUR, row

DATA = DATASETS["raw/orderbook_deltas"]
LOW_US = us_from_datetime(HOUR)
TICKERS = ("KXA-1", "KXA-10", "KXB", "a", "z", "Ü", "ü", "字")
TEXTS = {name: hash_ for hash_, name in enumerate((*TICKERS, "yes", "no", "g1", "g2"), start=-5)}

drawn_rows = st.lists(
    st.fixed_dictionaries(
        {
            "ticker": st.sampled_from(TICKERS),
            "second": st.integers(0, 3_599) | st.integers(7, 9),
            "side": st.sampled_from(["no", "yes"]),
            "price_e4": st.sampled_from([100, 200]),
            "delta_e2": st.integers(-2, 2),
            "gatherer": st.sampled_from(["g1", "g2"]),
        }
    ),
    max_size=60,
)


def rows_of(drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        row(DATA, HOUR + timedelta(seconds=item["second"]), occurrence=number, seq=number, **item)
        for number, item in enumerate(drawn)
    ]


def records_of(rows: list[dict[str, Any]]) -> Records:
    records = np.zeros(len(rows), record_type(DATA.columns))
    for number, item in enumerate(rows):
        for column in DATA.columns:
            value = item[column.name]
            if column.type == "text":
                value = TEXTS[value]
            records[number][column.name] = us_from_datetime(value) if column.type == "timestamptz" else value
    return records


def sort(rows: list[dict[str, Any]], size: int, counts: Mapping[str, int], per_stretch: int) -> list[dict[str, Any]]:
    def texts_at(name: str, times_us: Sequence[int]) -> Mapping[int, str]:
        return {TEXTS[item[name]]: item[name] for item in rows if us_from_datetime(item["exchange_ts"]) in times_us}

    counted = [CountedTicker(ticker, TEXTS[ticker], count) for ticker, count in counts.items()]
    blocks = [records_of(rows[at : at + size]) for at in range(0, len(rows), size)]
    with tempfile.TemporaryDirectory() as folder:
        span = LOW_US, LOW_US + US_PER_HOUR
        batches = list(sort_records(blocks, DATA, span, counted, texts_at, Path(folder), rows_per_stretch=per_stretch))
        assert list(Path(folder).iterdir()) == []
    assert all(batch.schema.equals(DATA.schema, check_metadata=True) for batch in batches)
    return [item for batch in batches for item in batch.to_pylist()]


def place(item: dict[str, Any]) -> list[Any]:
    return [item[name].encode() if isinstance(item[name], str) else item[name] for name in DATA.order]


@settings(max_examples=60, deadline=None)
@given(drawn_rows, st.integers(1, 9), st.integers(1, 12))
def test_rows_come_out_in_the_order_of_the_data_set(drawn: list[dict[str, Any]], size: int, per_stretch: int) -> None:
    rows = rows_of(drawn)
    found = sort(rows, size, Counter(item["ticker"] for item in rows), per_stretch)
    assert found == sorted(rows, key=place)


def test_a_row_of_a_market_that_was_not_counted_is_an_error() -> None:
    item = {"ticker": "KXB", "second": 1, "side": "no", "price_e4": 1, "delta_e2": 1, "gatherer": "g1"}
    with pytest.raises(LakeCorrupt, match="ticker is not known"):
        sort(rows_of([item]), 1, {"a": 1}, 4)
    with pytest.raises(LakeCorrupt, match="outside of its partition"):
        sort(rows_of([item | {"second": 3_600}]), 1, {"KXB": 1}, 4)


def test_order_book_deltas_have_a_fixed_width_and_trades_have_not() -> None:
    assert has_fixed_width(DATA.columns)
    assert can_sort(DATA)
    assert not has_fixed_width(DATASETS["raw/trades"].columns)
