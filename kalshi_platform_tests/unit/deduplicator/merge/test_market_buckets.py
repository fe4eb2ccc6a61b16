"""Markets by bucket: a division adds up to all of them, on every machine alike."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.deduplicator.merge.bucket_file import split_batch
from kalshi_platform.deduplicator.merge.market_buckets import MarketBuckets
from kalshi_platform.market.parts import MarketPart

tickers_of = st.lists(st.text(min_size=1, max_size=8), max_size=40)


@given(tickers=tickers_of, total=st.integers(1, 5), count=st.integers(1, 7))
def test_each_market_is_in_one_bucket_of_one_part(tickers: list[str], total: int, count: int) -> None:
    parts = [MarketBuckets(count, MarketPart(number, total)) for number in range(1, total + 1)]
    found = [each.buckets_of(each.number(tickers)) for each in parts]
    for place, ticker in enumerate(tickers):
        mine = [int(buckets[place]) for buckets in found]
        assert sum(bucket >= 0 for bucket in mine) == 1
        assert mine == [each.bucket_of(ticker) for each in parts]
        assert [bucket >= 0 for bucket in mine] == [each.part.holds(ticker) for each in parts]
        assert max(mine) < count


def test_the_bucket_of_a_market_is_the_same_in_every_version() -> None:
    buckets = MarketBuckets(7, MarketPart(2, 3))
    assert [buckets.bucket_of(f"KXBUCKET-{number}") for number in range(8)] == [3, 6, -1, -1, -1, -1, 6, 6]


@given(tickers=tickers_of)
def test_a_column_gets_the_numbers_of_its_tickers(tickers: list[str]) -> None:
    markets = MarketBuckets()
    column = pa.array([*tickers, *tickers[::2]], pa.string())
    numbers = markets.number_column(column)
    assert [markets.tickers[number] for number in numbers] == column.to_pylist()


@given(keys=st.lists(st.integers(-1, 4), max_size=30))
def test_a_batch_is_split_by_key_in_its_order(keys: list[int]) -> None:
    batch = pa.record_batch({"n": pa.array(range(len(keys)), pa.int64())})
    found = {key: part.column("n").to_pylist() for key, part in split_batch(batch, np.array(keys, dtype=np.int64))}
    assert found == {key: [n for n, each in enumerate(keys) if each == key] for key in set(keys)}
