"""A recorded production connection through the session: nothing lost, nothing invented."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import pytest

from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    Record,
    SequenceConsumed,
    SequenceGap,
)
from kalshi_platform_tests.fixtures.captures import ORDERBOOK, recording
from kalshi_platform_tests.fixtures.recording_session import RecordingSession
from kalshi_platform_tests.fixtures.reference_book import Book


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in recording(ORDERBOOK).read_text().splitlines()]


def play(lines: list[dict[str, Any]], *, without: str | None = None) -> tuple[RecordingSession, list[Record]]:
    numbers = itertools.count(1)
    session = RecordingSession(1, lambda: next(numbers))
    tickers = [each["frame"]["msg"]["market_ticker"] for each in lines if each["frame"]["type"] == "orderbook_snapshot"]
    session.subscribe_books(dict.fromkeys(tickers, 3))
    records: list[Record] = []
    for line in lines:
        frame = json.loads(json.dumps(line["frame"]))
        if without and isinstance(frame.get("msg"), dict):
            frame["msg"].pop(without, None)
        records += session.receive(json.dumps(frame).encode(), line["received_at_ns"]).records
    return session, [*records, *session.close(lines[-1]["received_at_ns"], "end of capture")]


def of(kind: type[Any], records: list[Record]) -> list[Any]:
    return [record for record in records if isinstance(record, kind)]


@pytest.mark.parametrize("without", [None, "ts", "ts_ms"])
def test_the_capture_is_one_run_of_twelve_markets(lines: list[dict[str, Any]], without: str | None) -> None:
    session, records = play(lines, without=without)
    counts = Counter(type(record).__name__ for record in records)
    assert counts == {
        "StreamOpened": 1,
        "BookSnapshot": 12,
        "BookSubscriptionStarted": 12,
        "SequenceConsumed": 11,
        "BookDelta": 245,
        "BookSubscriptionEnded": 12,
        "StreamEnded": 1,
    }
    numbers = sorted(record.seq for record in of((BookSnapshot, SequenceConsumed, BookDelta), records))  # type: ignore[arg-type]
    assert numbers == list(range(1, 269))
    assert of(SequenceGap, records) == []
    assert {(record.seq_to, record.reason) for record in of(BookSubscriptionEnded, records)} == {
        (268, "end of capture")
    }
    assert (session.counters.duplicates, session.counters.dead_letters) == (0, 0)


def test_times_are_microseconds_with_ts_and_milliseconds_without(lines: list[dict[str, Any]]) -> None:
    exact = of(BookDelta, play(lines)[1])
    coarse = of(BookDelta, play(lines, without="ts")[1])
    assert any(row.exchange_ts_us % 1000 for row in exact)
    assert [row.exchange_ts_us // 1000 * 1000 for row in exact] == [row.exchange_ts_us for row in coarse]


def test_no_level_of_the_recorded_books_goes_below_zero(lines: list[dict[str, Any]]) -> None:
    books: dict[str, Book] = {}
    for record in play(lines)[1]:
        if isinstance(record, BookSnapshot):
            books[record.ticker] = Book(record.yes, record.no)
        elif isinstance(record, BookDelta):
            assert books[record.ticker].apply(record.side, record.price_e4, record.delta_e2) >= 0


def test_one_lost_frame_is_one_gap_that_ends_all_twelve(lines: list[dict[str, Any]]) -> None:
    lost = next(i for i, each in enumerate(lines) if each["frame"].get("seq") == 150)
    session, records = play([*lines[:lost], *lines[lost + 1 :]])
    assert [(gap.seq_expected, gap.seq_seen) for gap in of(SequenceGap, records)] == [(150, 151)]
    assert {(end.seq_to, end.reason) for end in of(BookSubscriptionEnded, records)} == {(149, "gap")}
    assert len(of(BookSubscriptionStarted, records)) == len(session.out_of_sync()) == 12
    assert len(of(BookDelta, records)) == 244
