"""Reading ranges and books; what is not there is never passed over in silence."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.errors import LakeCorrupt, MissingPartition
from kalshi_platform.lake import reader
from kalshi_platform.lake.layout import Partition, find_dataset
from kalshi_platform.lake.manifest import Manifest
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform_tests.fixtures.lake import HOUR, batch, put_partition, row
from kalshi_platform_tests.fixtures.reference_book import LevelChange, fold

ONE = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(FolderRoot(tmp_path / "lake"))


def put(
    store: FolderStore,
    table: str,
    start: datetime,
    *rows: dict[str, Any],
    state: Any = "closed",
    share: float | None = 1.0,
) -> Manifest:
    data = find_dataset(table)
    full = [row(data, item[data.time_column], **item) for item in rows]
    return put_partition(
        store, Partition(find_dataset(table), start), [batch(data, full)] if full else [], state, share
    )


def at(minutes: float) -> datetime:
    return HOUR + timedelta(minutes=minutes)


def test_a_range_gives_its_rows_sorted_by_market_and_time(store: FolderStore) -> None:
    put(store, "orderbook_deltas", HOUR, {"exchange_ts": at(59), "ticker": "B"}, {"exchange_ts": at(1), "ticker": "A"})
    put(store, "orderbook_deltas", HOUR + ONE, {"exchange_ts": at(60), "ticker": "A"}, {"exchange_ts": at(90)})
    frame = reader.deltas(store, at(0), at(90))
    assert frame.select("ticker", "exchange_ts").rows() == [("A", at(1)), ("A", at(60)), ("B", at(59))]
    assert reader.deltas(store, at(1), at(60), ["A"]).get_column("exchange_ts").to_list() == [at(1)]
    assert reader.deltas(store, at(0), at(90), []).height == 0
    assert "segment" not in frame.columns


def test_a_missing_hour_raises_and_names_itself(store: FolderStore) -> None:
    put(store, "trades", HOUR, {"exchange_ts": at(1)})
    put(store, "trades", HOUR + 2 * ONE, {"exchange_ts": at(121)})
    with pytest.raises(MissingPartition, match=r"raw/trades lacks 2026-11-20-05:00 \(missing\)") as caught:
        reader.trades(store, at(0), at(180))
    assert caught.value.missing == ("2026-11-20-05:00",)
    assert reader.trades(store, at(120), at(180)).height == 1


def test_a_marked_hole_separates_segments_and_is_listed(store: FolderStore) -> None:
    put(store, "trades", HOUR, {"exchange_ts": at(1)}, {"exchange_ts": at(2), "trade_id": "t-2"})
    put(store, "trades", HOUR + 2 * ONE, {"exchange_ts": at(121)})
    put(store, "trades", HOUR + 3 * ONE, {"exchange_ts": at(181)})
    frame = reader.trades(store, at(0), at(300), holes="mark")
    assert frame.select("exchange_ts", "segment").rows() == [(at(1), 0), (at(2), 0), (at(121), 1), (at(181), 1)]
    listed = reader.holes(store, "raw/trades", at(0), at(300))
    assert listed.rows() == [(at(60), at(120), "missing"), (at(240), at(300), "missing")]


def test_an_open_partition_counts_only_when_requested(store: FolderStore) -> None:
    put(store, "trades", HOUR, {"exchange_ts": at(1)}, state="open")
    with pytest.raises(MissingPartition, match=r"04:00 \(open\)"):
        reader.trades(store, at(0), at(60))
    assert reader.trades(store, at(0), at(60), open=True).height == 1
    assert reader.trades(store, at(0), at(60), holes="mark").height == 0
    assert reader.holes(store, "trades", at(0), at(60), open=True).height == 0


def test_a_file_of_another_size_than_its_manifest_says_is_corrupt(store: FolderStore) -> None:
    (file,) = put(store, "trades", HOUR, {"exchange_ts": at(1)}).files
    path = f"raw/trades/date=2026-11-20/hour=04/{file.name}"
    store.write(path, (store.read(path) or b"") + b"x")
    with pytest.raises(LakeCorrupt, match="its manifest says"):
        reader.trades(store, at(0), at(60))
    store.delete(path)
    with pytest.raises(LakeCorrupt, match="0 bytes"):
        reader.trades(store, at(0), at(60))


def test_candles_and_processed_trades_are_read_by_day(store: FolderStore) -> None:
    midnight = HOUR.replace(hour=0)
    put(store, "processed/trades", midnight)
    put(store, "aggregates/candles_1m", midnight)
    assert reader.trades(store, at(0), at(10), layer="processed").schema["yes_price_dollars"] == pl.Decimal(9, 4)
    assert reader.candles(store, at(0), at(10)).columns[:2] == ["ticker", "minute"]


def test_a_book_is_its_newest_checkpoint_and_the_later_deltas(store: FolderStore) -> None:
    old = {"checkpoint_ts": at(5), "yes_price_e4": [100], "yes_count_e2": [9_999], "no_price_e4": [], "no_count_e2": []}
    new = {"checkpoint_ts": at(10), "yes_price_e4": [5_000, 6_000], "yes_count_e2": [100, 200], "no_price_e4": [3_000]}
    put(store, "book_checkpoints", HOUR, old, new | {"no_count_e2": [50]})
    put(store, "book_checkpoints", HOUR + ONE)
    put(
        store,
        "orderbook_deltas",
        HOUR,
        {"exchange_ts": at(10), "price_e4": 5_000, "delta_e2": 7},  # in the checkpoint already
        {"exchange_ts": at(11), "price_e4": 5_000, "delta_e2": -100},
        {"exchange_ts": at(11), "price_e4": 6_000, "delta_e2": 1, "occurrence": 0},
        {"exchange_ts": at(11), "price_e4": 6_000, "delta_e2": 1, "occurrence": 1},
        {"exchange_ts": at(11), "ticker": "OTHER", "price_e4": 6_000, "delta_e2": 5},
    )
    put(store, "orderbook_deltas", HOUR + ONE, {"exchange_ts": at(61), "side": "no", "price_e4": 3_000, "delta_e2": 5})

    def levels(moment: datetime) -> list[tuple[Any, ...]]:
        return reader.book_at(store, "KXA-1", moment).select("side", "price_e4", "count_e2").rows()

    assert levels(at(10)) == [("no", 3_000, 50), ("yes", 5_000, 100), ("yes", 6_000, 200)]
    assert levels(at(11)) == [("no", 3_000, 50), ("yes", 6_000, 202)]
    assert levels(at(61)) == [("no", 3_000, 55), ("yes", 6_000, 202)]
    assert levels(at(9)) == [("yes", 100, 9_999)]
    with pytest.raises(MissingPartition, match=r"lacks 2026-11-20-03:00"):
        levels(at(4))
    book = reader.book_at(store, "KXA-1", at(61))
    assert set(book.select("checkpoint_ts", "exact").rows()) == {(at(10), True)}


def test_a_book_over_a_hole_raises_or_is_marked(store: FolderStore) -> None:
    checkpoint = {"checkpoint_ts": at(10), "yes_price_e4": [5_000], "yes_count_e2": [100]}
    put(store, "book_checkpoints", HOUR, checkpoint)
    put(store, "book_checkpoints", HOUR + 2 * ONE)
    for hours in (0, 1, 2):
        put(store, "orderbook_deltas", HOUR + hours * ONE)
    with pytest.raises(MissingPartition, match="raw/book_checkpoints lacks 2026-11-20-05:00"):
        reader.book_at(store, "KXA-1", at(130))
    assert reader.book_at(store, "KXA-1", at(130), holes="mark").get_column("exact").to_list() == [False]
    put(store, "book_checkpoints", HOUR + ONE)
    assert reader.book_at(store, "KXA-1", at(130)).get_column("exact").to_list() == [True]
    store.delete("raw/orderbook_deltas/date=2026-11-20/hour=05/_manifest.json")
    with pytest.raises(MissingPartition, match="raw/orderbook_deltas lacks 2026-11-20-05:00"):
        reader.book_at(store, "KXA-1", at(130))
    assert reader.book_at(store, "KXA-1", at(130), holes="mark").get_column("exact").to_list() == [False]


@pytest.mark.parametrize("share", [None, 0.999999])
def test_a_book_is_exact_only_where_every_hour_of_its_deltas_is_complete(
    store: FolderStore, share: float | None
) -> None:
    put(store, "book_checkpoints", HOUR, {"checkpoint_ts": at(10), "yes_price_e4": [5_000], "yes_count_e2": [100]})
    put(store, "book_checkpoints", HOUR + ONE)
    put(store, "orderbook_deltas", HOUR)
    put(store, "orderbook_deltas", HOUR + ONE, share=share)

    def exact(minutes: float) -> list[bool]:
        return reader.book_at(store, "KXA-1", at(minutes)).get_column("exact").to_list()

    assert (exact(10), exact(59), exact(61)) == ([True], [True], [False])


def test_a_level_below_zero_means_that_a_delta_is_lost(store: FolderStore) -> None:
    put(store, "book_checkpoints", HOUR, {"checkpoint_ts": at(10)})
    put(store, "orderbook_deltas", HOUR, {"exchange_ts": at(11), "price_e4": 5_000, "delta_e2": -5})
    with pytest.raises(MissingPartition, match="its yes level at 5000 is -5"):
        reader.book_at(store, "KXA-1", at(12))
    assert reader.book_at(store, "KXA-1", at(12), holes="mark").get_column("exact").to_list() == [False]


def test_a_market_without_an_checkpoint_has_no_book(store: FolderStore) -> None:
    for back in range(3):
        put(store, "book_checkpoints", HOUR - back * ONE)
    with pytest.raises(MissingPartition, match="no checkpoint in the 3:00:00 before"):
        reader.book_at(store, "KXA-1", at(1), look_back=3 * ONE)


CHANGES = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(["yes", "no"]), st.integers(1, 3), st.integers(-3, 9).filter(bool)),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(CHANGES, st.integers(0, 7))
def test_a_book_is_the_fold_of_the_market_room(tmp_path_factory: Any, changes: list[Any], moment: int) -> None:
    store = FolderStore(FolderRoot(tmp_path_factory.mktemp("lake")))
    base = us_from_datetime(HOUR)
    start = {
        "checkpoint_ts": HOUR,
        "yes_price_e4": [1],
        "yes_count_e2": [100],
        "no_price_e4": [2],
        "no_count_e2": [100],
    }
    put(store, "book_checkpoints", HOUR, start)
    rows = [
        {
            "exchange_ts": datetime_from_us(base + offset),
            "side": side,
            "price_e4": price,
            "delta_e2": delta,
            "occurrence": number,
        }
        for number, (offset, side, price, delta) in enumerate(changes)
    ]
    put(store, "orderbook_deltas", HOUR, *rows)
    applied = [LevelChange(base + offset, *rest) for offset, *rest in changes if offset <= moment]
    book = fold(((1, 100),), ((2, 100),), applied)
    frame = reader.book_at(store, "KXA-1", datetime_from_us(base + moment), holes="mark")
    expected = [(side, *level) for side, levels in (("no", book.no), ("yes", book.yes)) for level in levels]
    assert frame.select("side", "price_e4", "count_e2").rows() == expected
    assert all(exact == (not book.negative_levels) for exact in frame.get_column("exact"))
