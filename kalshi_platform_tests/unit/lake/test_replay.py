"""Replays of a range: everything once and in the order of time, and books that are those of book_at."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.errors import HoleInRange
from kalshi_platform.lake import reader
from kalshi_platform.lake.reader import BookKnown, Delta, HoleBegins, MarketBook, Record
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform_tests.fixtures.lake import HOUR, at, cover, put

ONE = timedelta(hours=1)
US = timedelta(microseconds=1)
TICKERS = ("A", "B", "C")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(FolderRoot(tmp_path / "lake"))


def fill(store: FolderStore) -> int:
    """Two hours of three markets: A is whole, B has a hole, C is covered from within the first hour on."""
    chance = random.Random(5)
    books: dict[str, dict[tuple[str, int], int]] = {ticker: {} for ticker in TICKERS}
    checkpoints: dict[int, list[dict[str, Any]]] = {-1: [], 0: [], 1: []}
    deltas: dict[int, list[dict[str, Any]]] = {0: [], 1: []}

    def keep(ticker: str, minutes: float) -> None:
        sides = {
            f"{side}_{what}": [level[1] if what == "price_e4" else size for level, size in levels]
            for side in ("yes", "no")
            for what in ("price_e4", "count_e2")
            for levels in [sorted((level, size) for level, size in books[ticker].items() if level[0] == side)]
        }
        moment = at(minutes) - US if minutes % 60 == 0 else at(minutes)
        hour = int((moment - HOUR) // ONE)
        checkpoints[hour].append({"ticker": ticker, "checkpoint_ts": moment, **sides})

    times = sorted(chance.uniform(0, 120) for _ in range(1_500))
    for ticker in TICKERS:
        books[ticker]["yes", 5_000] = 10**6
        if ticker != "C":
            keep(ticker, 0)
    marks = [("C", 20.0), ("B", 40.0), *((ticker, 60.0) for ticker in TICKERS)]
    for number, minutes in enumerate(times):
        while marks and marks[0][1] < minutes:
            keep(*marks.pop(0))
        ticker = chance.choice(TICKERS)
        level = chance.choice([("yes", 5_000), ("yes", 4_900), ("no", 4_000)])
        size = chance.choice([100, 300, -books[ticker].get(level, -100)])
        books[ticker][level] = books[ticker].get(level, 0) + size
        if not books[ticker][level]:
            del books[ticker][level]
        row = {"exchange_ts": at(minutes), "ticker": ticker, "side": level[0], "price_e4": level[1], "delta_e2": size}
        deltas[int(minutes // 60)].append(row | {"occurrence": number, "seq": number})
    for hour in (-1, 0, 1):
        put(store, "book_checkpoints", HOUR + hour * ONE, *checkpoints[hour])
    for hour in (0, 1):
        put(store, "orderbook_deltas", HOUR + hour * ONE, *deltas[hour], share=0.9)
        put(store, "trades", HOUR + hour * ONE, {"exchange_ts": at(60 * hour + 30), "ticker": "B"})
    after = 1 / 60_000_000
    cover(store, HOUR, ("A", 0, 60), ("B", 0, 30), ("B", 40 + after, 60), ("C", 20 + after, 60))
    cover(store, HOUR + ONE, *((ticker, 0, 60) for ticker in TICKERS))
    return len(times)


def levels(book: MarketBook) -> list[tuple[str, int, int]]:
    return sorted((side, *level) for side in ("yes", "no") for level in getattr(book, side).items())


@pytest.mark.parametrize("rows_in_memory", [2_000_000, 40])
def test_a_replay_gives_everything_in_order_and_the_books_of_book_at(store: FolderStore, rows_in_memory: int) -> None:
    count = fill(store)
    replayed = reader.replay(store, at(0), at(120), rows_in_memory=rows_in_memory)
    seen, last_us, compared = [], 0, 0
    for event in replayed:
        assert event.ts_us >= last_us
        last_us = event.ts_us
        if isinstance(event, Delta):
            seen.append((event.book.ticker, event.ts_us, event.side, event.price_e4, event.delta_e2))
            if len(seen) % 15 == 0:
                compared += event.book.exact
                found = reader.find_book(store, event.book.ticker, datetime_from_us(event.ts_us))
                assert event.book.exact == found.exact
                if found.exact:
                    assert levels(event.book) == sorted(found.levels.rows())
    frame = reader.deltas(store, at(0), at(120), holes="mark")
    rows = [
        (ticker, us_from_datetime(moment), side, price, delta)
        for ticker, moment, side, price, delta in frame.select(
            "ticker", "exchange_ts", "side", "price_e4", "delta_e2"
        ).iter_rows()
    ]
    assert (len(seen), sorted(seen)) == (count, sorted(rows))
    assert compared > 50
    assert {ticker: book.exact for ticker, book in replayed.books.items()} == dict.fromkeys(TICKERS, True)


def test_holes_books_and_trades_are_events_at_their_place(store: FolderStore) -> None:
    fill(store)
    others = [event for event in reader.replay(store, at(10), at(120), ["B", "C"]) if not isinstance(event, Delta)]
    assert [(type(each).__name__, each.book.ticker, datetime_from_us(each.ts_us)) for each in others] == [
        ("HoleBegins", "C", at(10)),
        ("BookKnown", "C", at(20)),
        ("HoleBegins", "B", at(30)),
        ("Record", "B", at(30)),
        ("BookKnown", "B", at(40)),
        ("Record", "B", at(90)),
    ]
    hole = next(each for each in others if isinstance(each, HoleBegins) and each.book.ticker == "B")
    assert (datetime_from_us(hole.to_us), hole.reason) == (at(40) + US, "not covered")
    record = next(each for each in others if isinstance(each, Record))
    assert (record.table, record.values["yes_price_e4"]) == ("trades", 5_600)
    assert any(isinstance(each, BookKnown) for each in others)


def test_a_replay_that_must_be_whole_refuses_holes_of_its_markets_only(store: FolderStore) -> None:
    fill(store)
    with pytest.raises(HoleInRange, match="B from 2026-11-20T04:30"):
        list(reader.replay(store, at(0), at(120), ["A", "B"], holes="raise"))
    whole = list(reader.replay(store, at(25), at(120), ["A", "C"], holes="raise"))
    assert all(event.book.exact for event in whole)
    assert not any(isinstance(event, HoleBegins) for event in whole)


def test_deltas_of_one_moment_and_market_apply_together(store: FolderStore) -> None:
    moment = {"exchange_ts": at(5), "ticker": "A", "side": "yes"}
    put(
        store,
        "orderbook_deltas",
        HOUR,
        *({**moment, "price_e4": price, "delta_e2": 100} for price in (1_000, 2_000, 3_000)),
        {"exchange_ts": at(5), "ticker": "B", "price_e4": 1_000, "delta_e2": 100},
    )
    cover(store, HOUR, ("A", 0, 60), ("B", 0, 60))
    sizes = [
        (event.book.ticker, len(event.book.yes)) for event in reader.replay(store, at(0), at(60), also=())
        if isinstance(event, Delta)
    ]  # fmt: skip
    assert sizes == [("A", 3), ("A", 3), ("A", 3), ("B", 1)]


def test_a_hole_before_the_start_leaves_the_book_unknown(store: FolderStore) -> None:
    empty: dict[str, list[int]] = {"yes_price_e4": [], "yes_count_e2": [], "no_price_e4": [], "no_count_e2": []}
    put(store, "book_checkpoints", HOUR - ONE, {"ticker": "B", "checkpoint_ts": HOUR - US, **empty})
    put(store, "book_checkpoints", HOUR, {"ticker": "B", "checkpoint_ts": at(60) - US, **empty})
    rows = ({"exchange_ts": at(minute), "ticker": "B", "delta_e2": 100} for minute in (5, 40))
    put(store, "orderbook_deltas", HOUR, *rows, share=0.9)
    cover(store, HOUR, ("B", 0, 10), ("B", 12, 60))
    for hour in (HOUR - ONE, HOUR + ONE):
        put(store, "orderbook_deltas", hour, share=0.9)
        cover(store, hour, ("B", 0, 60))
    events = list(reader.replay(store, at(30), at(60), also=()))
    assert [(type(event), event.book.ticker) for event in events] == [(Delta, "B"), (BookKnown, "B")]
    exact = [event.book.exact for event in reader.replay(store, at(30), at(60), also=())]
    assert exact == [reader.find_book(store, "B", at(minute)).exact for minute in (40, 60)] == [False, True]
    with pytest.raises(HoleInRange, match="unknown at the start: B from 2026-11-20T04:10"):
        list(reader.replay(store, at(30), at(60), also=(), holes="raise"))


@pytest.mark.parametrize("start", [0, 6])
def test_changes_of_one_level_in_one_moment_count_together(store: FolderStore, start: int) -> None:
    book = {"yes_price_e4": [5_000], "yes_count_e2": [300], "no_price_e4": [], "no_count_e2": []}
    put(store, "book_checkpoints", HOUR - ONE, {"ticker": "A", "checkpoint_ts": HOUR - US, **book})
    level = {"ticker": "A", "side": "yes", "price_e4": 5_000}
    changes = [(5, -500), (5, 1_000), (7, 100)]
    put(
        store,
        "orderbook_deltas",
        HOUR,
        *({**level, "exchange_ts": at(minute), "delta_e2": delta} for minute, delta in changes),
    )
    cover(store, HOUR, ("A", 0, 60))
    found = [
        (event.delta_e2, event.size_e2, event.book.exact)
        for event in reader.replay(store, at(start), at(60), also=())
        if isinstance(event, Delta)
    ]
    moment = [(-500, 800, True), (1_000, 800, True)]
    assert found == [*(moment if start == 0 else []), (100, 900, True)]
