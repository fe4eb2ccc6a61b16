"""Whatever happens in whatever order: database and disk together hold a beginning of what was put, in its order."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.gatherer.ingest.backlog import Backlog
from kalshi_platform.gatherer.ingest.outage import Outage
from kalshi_platform.gatherer.ingest.puts import Puts, memory_of
from kalshi_platform.gatherer.ingest.writer_counters import WriterCounters
from kalshi_platform.gatherer.journal.spool import Spool, SpoolUsage
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.records import BookDelta, BookSnapshot, DeadLetter, LifecycleEvent, Record, SequenceConsumed
from kalshi_platform_tests.fixtures.clocks import FakeClock

MIB = 1024**2
DELTA: tuple[Any, ...] = ("KXA-1", "yes", 4_200, 100, 1_795_380_241_123_456, 1_795_380_241_123_456_789, 11, 7, 0)


class MemorySpool:
    """Keeps blocks in memory and refuses them on demand."""

    def __init__(self) -> None:
        self.blocks: list[list[Record]] = []
        self.refuses_after: int | None = None
        self.refusal: Exception = OSError(28, "No space left on device")

    def append(self, records: Sequence[Record], *, last: bool = False) -> None:
        if self.refuses_after is not None and not last:
            if self.refuses_after == 0:
                raise self.refusal
            self.refuses_after -= 1
        self.blocks.append(list(records))

    def is_empty(self) -> bool:
        return not self.blocks

    def fill(self) -> SpoolUsage:
        return SpoolUsage(len(self.blocks), 1_000)


class World:
    """One backlog, a database that takes what is landed, and what was put."""

    def __init__(self) -> None:
        values = GathererSettings(
            name="g1", timeseries_url="", catalog_url="", state_dir=Path(), flush_rows=2, queue_rows=4,
            stall_patience_s=0.0,
        )  # fmt: skip
        self.counters = WriterCounters()
        self.spool = MemorySpool()
        outage = Outage("g1", FakeClock(), self.counters, 5.0)
        self.backlog = Backlog(values, FakeClock(), cast(Spool, self.spool), outage, self.counters, threading.Event())
        self.committed: list[int] = []
        self.taken: list[int] = []
        self.count = 0

    def put(self, count: int) -> None:
        self.backlog.put([SequenceConsumed(1, self.count + number) for number in range(count)])
        self.count += count

    def take(self) -> None:
        if not self.taken:
            self.taken = numbers(self.backlog.take())

    def land(self) -> None:
        if self.taken:
            self.committed += self.taken
            self.taken = []
            self.backlog.landed()

    def fail(self) -> None:
        if self.taken:
            self.taken = []
            self.backlog.failed()

    def break_off(self) -> None:
        """The writer's thread fails between `take` and `landed` or `failed`, and starts again."""
        self.taken = []

    def replay(self) -> None:
        if self.spool.blocks and not self.taken:
            self.committed += numbers(self.spool.blocks.pop(0))

    def check(self) -> None:
        on_disk = [number for block in self.spool.blocks for number in numbers(block)]
        assert on_disk == sorted(set(on_disk)), "out of order on disk"
        stored = set(self.committed) | set(on_disk)
        assert stored == set(range(len(stored))), "a hole in what is stored"
        assert self.backlog.queued() + len(stored | set(self.taken)) >= self.count


def numbers(records: Sequence[Record]) -> list[int]:
    return [record.seq for record in records if isinstance(record, SequenceConsumed)]


STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["take", "land", "fail", "break_off", "replay"]), st.none()),
    st.tuples(st.sampled_from(["refuse", "run_out"]), st.one_of(st.none(), st.integers(0, 2))),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, min_size=10, max_size=60))
def test_stored_records_are_always_a_prefix_of_those_put(steps: list[tuple[str, int | None]]) -> None:
    world = World()
    for name, argument in steps:
        if name == "put":
            world.put(argument or 1)
        elif name in ("refuse", "run_out"):
            world.spool.refuses_after = argument
            world.spool.refusal = MemoryError() if name == "run_out" else OSError(28, "No space left on device")
        else:
            getattr(world, name)()
        world.check()
    # At the end everything is on disk or committed, limits or not.
    world.fail()
    assert world.backlog.spill(last=True)
    world.check()
    assert world.backlog.queued() == 0
    stored = {number for block in world.spool.blocks for number in numbers(block)} | set(world.committed)
    assert stored == set(range(world.count))


def test_a_batch_in_flight_survives_any_failure_of_the_disk() -> None:
    world = World()
    world.spool.refuses_after, world.spool.refusal = 0, MemoryError()
    world.put(2)
    world.take()
    world.fail()
    assert world.counters.disk_error == "MemoryError"
    assert world.backlog.queued() == 2
    world.take()
    world.break_off()
    world.put(1)
    world.take()
    world.land()
    assert world.committed == [0, 1, 2]
    assert world.backlog.is_settled()


def test_a_full_memory_without_database_and_disk_stalls_until_there_is_room() -> None:
    world = World()
    world.spool.refuses_after = 0
    world.put(8)
    assert world.backlog.is_stalled
    assert world.counters.stalls == 1
    # The end of a session is accepted even so, without waiting.
    world.put(2)
    assert world.backlog.queued() == 10
    world.spool.refuses_after = None
    assert world.backlog.spill()
    assert not world.backlog.is_stalled
    world.backlog.wait_for_room()


@pytest.mark.parametrize("count", [1, 3])
def test_a_memory_with_room_is_no_stall(count: int) -> None:
    world = World()
    world.spool.refuses_after = 0
    world.put(count)
    assert not world.backlog.is_stalled


def book(number: int, levels: int = 200) -> BookSnapshot:
    """As large in memory as it looks: no two books share a level."""
    yes, no = (tuple((number * 10_000 + 257 + at, 10_000 + at) for at in range(levels)) for _ in "yn")
    return BookSnapshot(f"KXBIG-{number}", "ws", number, number, yes, no, 1, number)


def test_a_thousand_large_books_use_no_more_memory_than_the_limit() -> None:
    values = GathererSettings(
        name="g1", timeseries_url="", catalog_url="", state_dir=Path(), flush_bytes=2 * MIB, queue_bytes=8 * MIB
    )
    counters, spool = WriterCounters(), MemorySpool()
    outage = Outage("g1", FakeClock(), counters, 5.0)
    backlog = Backlog(values, FakeClock(), cast(Spool, spool), outage, counters, threading.Event())
    held: list[tuple[int, int]] = []
    tracemalloc.start()
    try:
        for number in range(1_000):
            backlog.put([book(number)])
            if number == 10:
                # A database that answers no more holds what it was given.
                assert len(backlog.take()) == 11
            # As the disk has them: what is in them is no memory of ours.
            spool.blocks = [[BookDelta(*DELTA)] * len(block) for block in spool.blocks]
            held.append((tracemalloc.get_traced_memory()[0], backlog.uncommitted_bytes()))
    finally:
        tracemalloc.stop()
    assert 6 * MIB < max(held)[0] < 12 * MIB
    assert all(abs(estimate - true) < 0.3 * true for true, estimate in held if true > 2 * MIB)
    assert counters.most_held_bytes <= 9 * MIB
    assert counters.spooled > 800
    # 2 MiB are 41 such books.
    assert max(map(len, spool.blocks)) == 41


def test_large_records_are_counted_with_their_content() -> None:
    small = [BookDelta(*DELTA)] * 10
    assert memory_of(small) == 3_000
    assert memory_of([*small, book(1, 200)]) == 3_300 + 400 * 128
    letter = DeadLetter(1, "unknown_type", "x" * 100, b"y" * 5_000)
    event = LifecycleEvent("KXA-1", "created", None, "z" * 2_000, 1, 1, 1, 1)
    assert memory_of([letter, event]) == 600 + 5_100 + 2_000


@pytest.mark.parametrize("limits", [{"flush_rows": 3}, {"flush_bytes": 3 * 300}])
def test_parts_end_with_a_put_and_keep_their_size(limits: dict[str, int]) -> None:
    puts = Puts()
    for at in (0, 2, 4, 6):
        puts.add([SequenceConsumed(1, at), SequenceConsumed(1, at + 1)], 600)
    assert list(puts.parts(limits.get("flush_rows", 100), limits.get("flush_bytes", 10**9))) == [4, 8]
    puts.drop(4)
    assert (puts.size, list(puts.parts(2, 10**9))) == (1_200, [2, 4])
    newer = Puts()
    newer.add([SequenceConsumed(1, 8)], 300)
    puts.put_before(newer)
    assert (newer.size, numbers(newer.records), list(newer.parts(1, 10**9))) == (1_500, [4, 5, 6, 7, 8], [2, 4, 5])
