"""Reading ranges and books; what is not there is never passed over in silence."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.errors import HoleInRange, LakeCorrupt, MissingPartition
from kalshi_platform.lake import reader
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform_tests.fixtures.lake import HOUR, at, cover, put
from kalshi_platform_tests.fixtures.reference_book import LevelChange, fold

ONE = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(FolderRoot(tmp_path / "lake"))


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
    listed = reader.partition_holes(store, "raw/trades", at(0), at(300))
    assert listed.rows() == [(at(60), at(120), "missing"), (at(240), at(300), "missing")]


def test_an_open_partition_counts_only_when_requested(store: FolderStore) -> None:
    put(store, "trades", HOUR, {"exchange_ts": at(1)}, state="open")
    with pytest.raises(MissingPartition, match=r"04:00 \(open\)"):
        reader.trades(store, at(0), at(60))
    assert reader.trades(store, at(0), at(60), open=True).height == 1
    assert reader.trades(store, at(0), at(60), holes="mark").height == 0
    assert reader.partition_holes(store, "trades", at(0), at(60), open=True).height == 0


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
    assert reader.candles(store, at(0), at(10)).columns[:2] == ["ticker", "start_period_ts"]


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
    with pytest.raises(MissingPartition, match="no book of KXA-1 in the 1 day"):
        levels(at(4))
    book = reader.book_at(store, "KXA-1", at(61))
    assert set(book.select("base", "base_ts", "exact").rows()) == {("checkpoint", at(10), True)}


def test_a_book_is_exact_where_the_coverage_of_its_market_reaches_it(store: FolderStore) -> None:
    checkpoints = [{"ticker": t, "checkpoint_ts": at(1), "yes_price_e4": [5_000], "yes_count_e2": [100]} for t in "AB"]
    put(store, "book_checkpoints", HOUR, *checkpoints)
    for hour in (HOUR, HOUR + ONE):
        put(store, "orderbook_deltas", hour, share=0.9)
    cover(store, HOUR, ("A", 1, 60), ("B", 1, 20), ("B", 20 + 1 / 6, 60))
    cover(store, HOUR + ONE, ("A", 0, 59), ("B", 0, 60))

    def exact(ticker: str, minutes: float) -> bool:
        return reader.find_book(store, ticker, at(minutes)).exact

    assert [exact("A", minutes) for minutes in (1, 20, 60, 118, 119)] == [True, True, True, True, False]
    assert [exact("B", minutes) for minutes in (1, 19, 20, 21, 119)] == [True, True, False, False, False]
    with pytest.raises(HoleInRange, match=r"B from 2026-11-20T04:20:00\+00:00 to 2026-11-20T04:20:10.*not covered"):
        reader.book_at(store, "B", at(30))
    book = reader.book_at(store, "B", at(30), holes="mark")
    assert book.select("base", "base_ts", "exact").row(0) == ("checkpoint", at(1), False)
    assert reader.find_book(store, "B", at(30)).uncovered_from == at(20)
    # A book that was polled after the hole began is nearer to the truth.
    polled = {
        "snapshot_ts": at(22),
        "received_at": at(22.5),
        "source": "rest",
        "yes_price_e4": [1],
        "yes_count_e2": [7],
    }
    put(store, "orderbook_snapshots", HOUR, {"ticker": "B", **polled})
    found = reader.find_book(store, "B", at(30))
    assert (found.state, found.base, found.base_ts) == ("approximate", "rest", at(22.5))
    assert found.levels.rows() == [("yes", 1, 7)]
    assert reader.find_book(store, "B", at(22.25)).base == "checkpoint"


def test_only_ranges_of_the_market_with_the_hole_are_refused(store: FolderStore) -> None:
    tickers = [f"M{number}" for number in range(10)]
    rows = [{"ticker": ticker, "exchange_ts": at(minutes)} for ticker in tickers for minutes in (5, 25, 45)]
    put(store, "orderbook_deltas", HOUR, *rows, share=0.999)
    put(store, "book_checkpoints", HOUR, *({"ticker": ticker, "checkpoint_ts": at(0)} for ticker in tickers))
    whole = [(ticker, 0.0, 60.0) for ticker in tickers if ticker != "M3"]
    cover(store, HOUR, *whole, ("M3", 0, 30), ("M3", 30 + 1 / 6, 60))
    others = [ticker for ticker in tickers if ticker != "M3"]
    assert reader.deltas(store, at(0), at(60), others).height == 27
    assert all(reader.find_book(store, ticker, at(50)).exact for ticker in others)
    assert reader.deltas(store, at(0), at(30), ["M3"]).height == 2
    for tickers_read in (None, ["M3"], ["M1", "M3"]):
        with pytest.raises(HoleInRange) as caught:
            reader.deltas(store, at(0), at(60), tickers_read)
        error = caught.value
        assert (error.ticker, error.from_ts, error.to_ts) == ("M3", at(30), at(30) + timedelta(seconds=10))
        assert error.reason == "not covered"
    marked = reader.deltas(store, at(0), at(60), ["M1", "M3"], holes="mark")
    assert marked.select("ticker", "segment", "in_hole").rows() == [
        ("M1", 0, False), ("M1", 0, False), ("M1", 0, False), ("M3", 0, False), ("M3", 0, False), ("M3", 1, False),
    ]  # fmt: skip
    expected = [("M3", at(30), at(30) + timedelta(seconds=10), "not covered")]
    assert reader.holes(store, at(0), at(60)).rows() == expected
    assert reader.holes(store, at(0), at(60), others).height == 0


def test_holes_say_what_is_not_there_and_what_does_not_fit_together(store: FolderStore) -> None:
    put(store, "orderbook_deltas", HOUR, {"exchange_ts": at(1), "ticker": "A"}, share=0.5)
    cover(store, HOUR, ("A", 0, 60))
    put(store, "orderbook_deltas", HOUR + ONE, share=0.5)
    put(store, "orderbook_deltas", HOUR + 3 * ONE, state="open", share=None)
    put(store, "orderbook_deltas", HOUR + 4 * ONE, share=None)
    cover(store, HOUR + 4 * ONE, ("A", 0, 60))
    assert [(row[1], row[3]) for row in reader.holes(store, at(0), at(300), ["A"]).rows()] == [
        (at(60), "raw/coverage of the hour is not in the lake"),
        (at(120), "the hour is not in the lake"),
        (at(180), "the hour is not closed yet"),
        (at(240), "rows were dropped before the export"),
    ]
    assert reader.holes(store, at(600), at(660)).rows() == [(None, at(600), at(660), "the hour is not in the lake")]
    assert reader.holes(store, at(1), at(1)).height == 0


def test_rows_inside_a_hole_are_marked(store: FolderStore) -> None:
    rows = [{"exchange_ts": at(minutes), "ticker": "A"} for minutes in (1, 10, 15, 20, 30)]
    put(store, "orderbook_deltas", HOUR, *rows, share=0.9)
    cover(store, HOUR, ("A", 5, 10), ("A", 20, 30))
    marked = reader.deltas(store, at(0), at(60), ["A"], holes="mark")
    assert marked.select("segment", "in_hole").rows() == [(1, True), (2, True), (2, True), (2, False), (3, True)]


def test_a_level_below_zero_means_that_a_delta_is_lost(store: FolderStore) -> None:
    put(store, "book_checkpoints", HOUR, {"checkpoint_ts": at(10)})
    put(store, "orderbook_deltas", HOUR, {"exchange_ts": at(11), "price_e4": 5_000, "delta_e2": -5})
    with pytest.raises(MissingPartition, match="its yes level at 5000 is -5"):
        reader.book_at(store, "KXA-1", at(12))
    assert reader.book_at(store, "KXA-1", at(12), holes="mark").get_column("exact").to_list() == [False]


def test_a_market_without_a_book_in_the_look_back_has_none(store: FolderStore) -> None:
    for back in range(4):
        put(store, "book_checkpoints", HOUR - back * ONE)
    put(store, "book_checkpoints", HOUR - 3 * ONE, {"checkpoint_ts": at(-179)})
    with pytest.raises(MissingPartition, match="no book of KXA-1 in the 3:00:00 before"):
        reader.book_at(store, "KXA-1", at(1), look_back=3 * ONE)
    assert reader.find_book(store, "KXA-1", at(1), look_back=3 * ONE).state == "unknown"
    assert reader.find_book(store, "KXA-1", at(0), look_back=3 * ONE).state == "approximate"


def test_a_book_seen_from_yes_has_its_best_prices_first(store: FolderStore) -> None:
    sides = {
        "yes_price_e4": [100, 4_000],
        "yes_count_e2": [5, 10],
        "no_price_e4": [3_000, 5_950],
        "no_count_e2": [1, 250],
    }
    put(store, "book_checkpoints", HOUR, {"checkpoint_ts": at(10), **sides})
    put(store, "orderbook_deltas", HOUR)
    book = reader.yes_book_at(store, "KXA-1", at(11))
    assert [(side, str(price), str(size)) for side, price, size, _ in book.rows()] == [
        ("ask", "0.4050", "2.50"), ("ask", "0.7000", "0.01"), ("bid", "0.4000", "0.10"), ("bid", "0.0100", "0.05"),
    ]  # fmt: skip
    assert book.schema["price_dollars"] == pl.Decimal(9, 4)


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


def test_quotes_are_refused_after_a_hole_until_the_book_is_known_again(store: FolderStore) -> None:
    put(store, "orderbook_deltas", HOUR, share=0.9)
    cover(store, HOUR, ("A", 0, 10), ("A", 12, 60), ("B", 0, 10), ("B", 12, 60), ("C", 0, 60))
    prices: dict[str, None] = dict.fromkeys(("bid_dollars", "bid_contracts", "ask_dollars", "ask_contracts"))
    rows = [("A", 1, "open"), ("A", 10, "hole"), ("A", 40, "resync"), ("B", 1, "open"), ("B", 10, "hole")]
    rows += [("B", 12, "resync"), ("C", 1, "open")]
    quotes = ({"ticker": t, "exchange_ts": at(minute), "event": event, **prices} for t, minute, event in rows)
    put(store, "processed/quotes", HOUR.replace(hour=0), *quotes)
    with pytest.raises(HoleInRange, match=r"A from 2026-11-20T04:20.* to 2026-11-20T04:30.*no book is known since"):
        reader.quotes(store, at(20), at(30))
    with pytest.raises(HoleInRange, match=r"A from 2026-11-20T04:20.* to 2026-11-20T04:40"):
        reader.scan_quotes(store, at(20), at(50))
    assert reader.quotes(store, at(20), at(30), ["B", "C"]).height == 0
    assert reader.quotes(store, at(40), at(50), ["A"])["event"].to_list() == ["resync"]
    marked = reader.quotes(store, at(0), at(60), holes="mark").filter(pl.col("ticker") == "A")
    assert marked.select("event", "in_hole").rows() == [("open", False), ("hole", True), ("resync", False)]


def test_books_of_minutes_are_refused_after_a_hole_until_they_are_known_again(store: FolderStore) -> None:
    put(store, "orderbook_deltas", HOUR, share=0.9)
    cover(store, HOUR, ("A", 0, 10.5), ("A", 10.6, 20), ("A", 22, 60))
    lists = ("bid_dollars", "bid_contracts", "ask_dollars", "ask_contracts")
    known: dict[str, Any] = dict.fromkeys(lists, ())
    unknown: dict[str, Any] = dict.fromkeys(lists)
    rows = [(1, known), (20, unknown), (40, known)]
    put(
        store,
        "processed/book_1m",
        HOUR.replace(hour=0),
        *({"ticker": "A", "ts": at(minute), **book} for minute, book in rows),
    )
    assert reader.books(store, at(11), at(20), ["A"], period="1m").height == 0
    with pytest.raises(HoleInRange, match=r"A from 2026-11-20T04:25.* to 2026-11-20T04:30"):
        reader.books(store, at(25), at(30), ["A"], period="1m")
    assert reader.books(store, at(40), at(60), ["A"], period="1m").height == 1
