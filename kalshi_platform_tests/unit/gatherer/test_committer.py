"""What cannot be written as it is: lost records are declared, and rows put aside, whatever the clock said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from kalshi_platform.gatherer.backlog import Backlog
from kalshi_platform.gatherer.committer import SPOOL_DAMAGED, Committer
from kalshi_platform.gatherer.outage import Outage
from kalshi_platform.gatherer.replay import Replay
from kalshi_platform.gatherer.spool import Spool
from kalshi_platform.gatherer.writer_counters import WriterCounters
from kalshi_platform.market.records import BookSnapshot, DeadLetter, Record, SequenceConsumed
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.tables import StreamTable
from kalshi_platform_tests.fixtures.clocks import FakeClock

DAY_NS = 86_400 * 10**9


class Taking:
    """A database that takes everything; `rows` are what came, by table."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.open_memberships: list[tuple[str, bool]] = []

    @contextmanager
    def transaction(self) -> Iterator[Taking]:
        yield self

    def execute(self, *_: object) -> int:
        return 0

    execute_values = execute

    def fetch_one(self, *_: object) -> tuple[int]:
        return (1,)

    def fetch_all(self, *_: object) -> list[tuple[str, bool]]:
        return self.open_memberships

    def insert_new(self, table: StreamTable, data: pa.Table, **_: object) -> int:
        self.rows.setdefault(table.name, []).extend(data.to_pylist())
        return int(data.num_rows)


class World:
    """A committer, what it wrote, and whom it asked for what."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.database = Taking()
        self.counters = WriterCounters()
        self.renewed: list[list[str]] = []
        self.reconnects = 0
        self.committer = Committer(
            "g1", cast(Database, self.database), PartitionBounds(), self.clock, self.counters,
            lambda tickers: self.renewed.append(list(tickers)), self._reconnect,
        )  # fmt: skip

    def _reconnect(self) -> None:
        self.reconnects += 1

    def replay(self, spool: Spool, former_file: int | None) -> None:
        """Write everything that is on disk."""
        outage = Outage("g1", self.clock, self.counters, 5.0)
        backlog = cast(Backlog, _Behind(spool))
        replay = Replay(
            backlog, self.committer, outage, self.counters, (10, 10), lambda: [1], former_file, lambda: False
        )
        while not spool.is_empty():
            replay.step()


class _Behind:
    def __init__(self, spool: Spool) -> None:
        self.spool = spool

    def replaying(self, count: int) -> None:
        pass

    watch_disk = lambda _: None  # noqa: E731


def damaged_spool(folder: Path, *, torn: bool = False) -> Spool:
    """Two blocks; the last byte of the second one is wrong or was never written."""
    spool = Spool(folder)
    spool.append([SequenceConsumed(1, 1)])
    spool.append([SequenceConsumed(1, 2)])
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content[:-1] if torn else content)
    return spool


def test_a_damage_of_this_process_lets_every_session_begin_anew_also_without_open_memberships(tmp_path: Path) -> None:
    world = World()
    world.replay(damaged_spool(tmp_path), former_file=None)
    assert world.reconnects == 1
    assert [row["reason"] for row in world.database.rows["dead_letters"]] == [SPOOL_DAMAGED]


def test_a_damage_of_a_former_process_only_renews_what_was_open(tmp_path: Path) -> None:
    world = World()
    world.database.open_memberships = [("B", True), ("A", True), ("C", False)]
    spool = damaged_spool(tmp_path)
    world.replay(spool, former_file=spool.last_number())
    assert (world.reconnects, world.renewed) == (0, [["A", "B"]])


def test_an_end_that_was_never_written_lets_no_session_end(tmp_path: Path) -> None:
    world = World()
    world.replay(damaged_spool(tmp_path, torn=True), former_file=None)
    assert world.reconnects == 0
    assert "dead_letters" not in world.database.rows


def snapshot(received_at_ns: int) -> Record:
    return BookSnapshot("A", "ws", received_at_ns // 1_000, received_at_ns, (), (), stream_id=1, seq=1)


@pytest.mark.parametrize("days", [3, -20_000], ids=["far ahead", "before everything"])
@pytest.mark.parametrize("kind", ["row", "dead letter"])
def test_what_came_while_the_clock_was_wrong_is_put_aside_with_the_time_of_now(kind: str, days: int) -> None:
    world = World()
    now_ns = world.clock.now_ns()
    wrong_ns = now_ns + days * DAY_NS
    right = snapshot(now_ns - DAY_NS)
    wrong = snapshot(wrong_ns) if kind == "row" else DeadLetter(wrong_ns, "unknown_type", "", b"{}")
    records: Sequence[Record] = [right, wrong]
    world.committer.commit_parts(records)
    assert len(world.database.rows["orderbook_snapshots"]) == 1
    (letter,) = world.database.rows["dead_letters"]
    assert letter["received_at"] == world.clock.now()
    assert letter["reason"] == ("unwritable" if kind == "row" else "unknown_type")
