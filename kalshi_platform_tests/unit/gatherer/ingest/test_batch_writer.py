"""Tests that refused records are quarantined and their claims withdrawn, whatever the clock says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pyarrow as pa
import pytest

from kalshi_platform.errors import StatementRejected
from kalshi_platform.gatherer.ingest.batch_writer import BatchWriter
from kalshi_platform.gatherer.ingest.fence import Fence
from kalshi_platform.gatherer.ingest.ingest_counters import IngestCounters
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    DeadLetter,
    LifecycleEvent,
    Record,
    SequenceConsumed,
    SequenceGap,
    SessionClosed,
    SessionOpened,
    StreamEnded,
    StreamOpened,
    TickerUpdate,
    Trade,
)
from kalshi_platform.market.tables import Table
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.clocks import FakeClock

DAY_NS = 86_400 * 10**9
END = Position(1, 500)


class FakeDatabase:
    """Accepts everything without `poison`; keeps `rows` by table, and `entries` of the ledger."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.entries: list[tuple[Any, ...]] = []
        self.poison: str | None = None
        self.ended = 0

    @contextmanager
    def transaction(self) -> Iterator[FakeDatabase]:
        rows, entries = {name: list(each) for name, each in self.rows.items()}, list(self.entries)
        try:
            yield self
        except StatementRejected:
            self.rows, self.entries = rows, entries
            raise

    def execute(self, statement: str, *_: object) -> int:
        self.ended += "UPDATE book_subscriptions" in statement
        return 0

    def execute_values(self, _: str, rows: Sequence[Sequence[Any]], *__: object) -> int:
        self._check(rows)
        self.entries += map(tuple, rows)
        return len(rows)

    def _check(self, rows: object) -> None:
        if self.poison is not None and self.poison in str(rows):
            raise StatementRejected("test: index row size 3520 exceeds btree version 4 maximum 2704", sqlstate="54000")

    def fetch_one(self, *_: object) -> tuple[int]:
        return (1,)

    def insert_new(self, table: Table, data: pa.Table, **_: object) -> int:
        # Of a dead letter only what it is found by is kept in an index.
        self._check(data.drop_columns(["payload", "detail", "seq"] if table.name == "dead_letters" else []).to_pylist())
        self.rows.setdefault(table.name, []).extend(data.to_pylist())
        return int(data.num_rows)


class World:
    """A committer, what it wrote, and the callbacks it made."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.database = FakeDatabase()
        self.counters = IngestCounters()
        self.renewed: list[list[str]] = []
        self.reconnects = 0
        self.committer = BatchWriter(
            "g1", cast(Database, self.database), PartitionBounds(), self.clock, self.counters, Fence(1),
            lambda tickers: self.renewed.append(list(tickers)), self._reconnect,
        )  # fmt: skip

    def _reconnect(self) -> None:
        self.reconnects += 1


def snapshot(received_at_ns: int) -> Record:
    return BookSnapshot("A", "ws", received_at_ns // 1_000, received_at_ns, (), (), stream_id=1, seq=1)


@pytest.mark.parametrize("days", [3, -20_000], ids=["far ahead", "before everything"])
@pytest.mark.parametrize("kind", ["row", "dead letter"])
def test_records_received_with_a_wrong_clock_are_quarantined_with_the_present_time(kind: str, days: int) -> None:
    world = World()
    now_ns = world.clock.now_ns()
    wrong_ns = now_ns + days * DAY_NS
    right = snapshot(now_ns - DAY_NS)
    wrong = snapshot(wrong_ns) if kind == "row" else DeadLetter(wrong_ns, "unknown_type", "", b"{}")
    records: Sequence[Record] = [right, wrong]
    world.committer.commit_parts(records, END)
    assert len(world.database.rows["orderbook_snapshots"]) == 1
    (letter,) = world.database.rows["dead_letters"]
    assert letter["received_at"] == world.clock.now()
    assert letter["reason"] == ("unwritable" if kind == "row" else "unknown_type")


POISON = 7_777_777_777
LONG = "T" * 3_503
NOW_NS = FakeClock().now_ns()
US = NOW_NS // 1_000
NOTHING: tuple[Any, ...] = (None,) * 10
REFUSED: dict[str, tuple[Record, str]] = {
    "delta": (BookDelta(LONG, "yes", 1, 1, US, NOW_NS, 1, POISON, 0), "letter"),
    "snapshot": (BookSnapshot(LONG, "ws", US, NOW_NS, (), (), 1, POISON), "letter"),
    "trade": (Trade(LONG, "A", US, 1, 1, 1, "yes", False, NOW_NS, "ws", None, 1, POISON), "letter"),
    "ticker": (cast(Any, TickerUpdate)(LONG, US, 1, *NOTHING, NOW_NS, 1, POISON), "letter"),
    "lifecycle": (LifecycleEvent(LONG, "odd", None, "{}", 1, NOW_NS, 1, POISON), "letter"),
    "dead letter": (DeadLetter(NOW_NS, LONG, "", b"{}", 1, 1, LONG, LONG), "bare"),
    "session": (SessionOpened(POISON, "books", "ws://x", False, NOW_NS), "letter, restart"),
    "session with odd texts": (SessionOpened(1, LONG, "ws://x", False, NOW_NS), "written"),
    "session's end": (SessionClosed(POISON, NOW_NS, "end"), "letter"),
    "session's end with odd texts": (SessionClosed(1, NOW_NS, LONG), "written"),
    "stream": (StreamOpened(POISON, 1, 1, "trade", NOW_NS), "letter, restart"),
    "stream of an odd channel": (StreamOpened(1, 1, 1, LONG, NOW_NS), "written"),
    "stream's end": (StreamEnded(1, NOW_NS, LONG), "written"),
    "book_subscription": (BookSubscriptionStarted(1, LONG, 1), "letter"),
    "book_subscription of a good name": (BookSubscriptionStarted(1, "GOOD", POISON), "letter, renewed"),
    "book_subscription's end": (BookSubscriptionEnded(1, LONG, 1, "gap"), "letter"),
    "book_subscription's end for odd reasons": (BookSubscriptionEnded(1, "GOOD", 1, LONG), "written"),
    "book_subscription's end of a good name": (
        BookSubscriptionEnded(1, "GOOD", POISON, "gap"),
        "letter, all ended, restart",
    ),
    "gap": (SequenceGap(1, 1, POISON, NOW_NS), "letter"),
    "number": (SequenceConsumed(1, POISON), "letter"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_record_does_not_block_later_ones_and_its_claim_is_withdrawn(name: str) -> None:
    record, outcome = REFUSED[name]
    world = World()
    world.database.poison = LONG if LONG in str(record) else str(POISON)
    before, after = snapshot(NOW_NS - 1), snapshot(NOW_NS + 1)
    world.committer.commit_parts([before, record, after], END)
    rows = world.database.rows
    assert len(rows["orderbook_snapshots"]) == 2
    letters = rows.get("dead_letters", [])
    if outcome == "written":
        assert letters == []
        assert any(LONG[:200] in entry for entry in world.database.entries)
    elif outcome == "bare":
        assert [(letter["reason"], letter["ticker"]) for letter in letters] == [(LONG[:200], LONG[:200])]
    else:
        assert [letter["reason"] for letter in letters] == ["unwritable"]
        assert world.counters.unwritable == 1
    assert world.reconnects == ("restart" in outcome)
    assert world.database.ended == ("all ended" in outcome)
    assert world.renewed == ([["GOOD"]] if "renewed" in outcome else [])
