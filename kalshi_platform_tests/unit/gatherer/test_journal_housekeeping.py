"""Segments are compressed once they are in the database, and removed when nothing needs them any more."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from kalshi_platform.gatherer.journal.archived import ArchivedSegments, write_archived
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.gatherer.journal.housekeeping import FRAMES_NOT_ARCHIVED, INTERVAL_S, Housekeeping, HouseKept
from kalshi_platform.gatherer.journal.segments import compressed_name, created_ns, list_segments, segment_name
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.journals import OPENED, SESSION, STREAM_OPENED, a_journal, batch_of, items_of

KEEP_S = 3_600.0


class House:
    """A journal of five segments, of which ingest has committed the first four.

    Their files were written a minute apart.
    """

    def __init__(self, folder: Path, *, archive_frames: bool = False) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.alarms: list[str] = []
        self.committed: Position | None = Position(5, 0)
        journal = a_journal(folder, self.clock, segment_bytes=1)
        for number in range(4):
            batch = batch_of([b'{"n":%d}' % number] * 3, first_number=3 * number + 1, marks=(OPENED, STREAM_OPENED))
            batch.received_at_ns = [self.clock.now_ns()] * 3
            journal.append(SESSION, batch)
            self.clock.step(60)
        journal.close()
        for number, path in list_segments(folder).items():
            written_ns = FakeClock().now_ns() + (number - 1) * 60 * 10**9
            os.utime(path, ns=(written_ns, written_ns))
        self.journal_id = journal.journal_id
        self.items = items_of(folder)
        self.keeper = Housekeeping(
            folder,
            journal.journal_id,
            self.clock,
            keep_s=KEEP_S,
            archive_frames=archive_frames,
            committed=lambda: self.committed,
            on_alarm=lambda kind, _detail: self.alarms.append(kind),
        )

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.suffix != ".json")


def test_what_is_committed_is_compressed_and_reads_the_same(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert list(list_segments(tmp_path)) == [1, 2, 3, 4, 5]
    assert house.keeper.keep_once() == HouseKept(compressed=4)
    assert house.names() == [*map(compressed_name, range(1, 5)), segment_name(5)]
    assert items_of(tmp_path) == house.items
    assert house.keeper.keep_once() == HouseKept()


def test_segments_older_than_the_limit_go_from_the_oldest_on(tmp_path: Path) -> None:
    house = House(tmp_path)
    # A segment is as old as the beginning of the next one.
    house.clock.step(KEEP_S - 5 * 60 + 130)
    assert house.keeper.keep_once() == HouseKept(compressed=4, removed=2)
    assert list(list_segments(tmp_path)) == [3, 4, 5]
    house.clock.step(7 * KEEP_S)
    assert house.keeper.keep_once() == HouseKept(removed=2)
    assert list(list_segments(tmp_path)) == [5]
    assert items_of(tmp_path) == [item for item in house.items if item.position.segment == 5]


def test_nothing_goes_that_is_not_committed(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.clock.step(2 * KEEP_S)
    house.committed = None
    assert house.keeper.keep_once() == HouseKept()
    house.committed = Position(2, 1_000)
    assert house.keeper.keep_once() == HouseKept(compressed=1, removed=1)
    assert house.names() == list(map(segment_name, range(2, 6)))


def test_a_segment_stays_until_the_lake_holds_it_and_that_is_one_alarm(tmp_path: Path) -> None:
    house = House(tmp_path, archive_frames=True)
    house.clock.step(2 * KEEP_S)
    kept = house.keeper.keep_once()
    assert (kept.removed, kept.waiting_for_archive_since) == (0, FakeClock().now())
    house.keeper.keep_once()
    assert house.alarms == [FRAMES_NOT_ARCHIVED]
    present = list(list_segments(tmp_path))
    segments = {each: created_ns(tmp_path, each) or 0 for each in present}
    of_another = ArchivedSegments(journal_id=house.journal_id + 1, lake="file:///lake", segments=segments)
    write_archived(tmp_path, of_another, present)
    assert house.keeper.keep_once().removed == 0
    # One that is missing keeps those after it, too, so that what is left has no hole.
    archived = ArchivedSegments(
        journal_id=house.journal_id, lake="file:///lake", segments={each: segments[each] for each in (1, 2, 4)}
    )
    write_archived(tmp_path, archived, present)
    assert house.keeper.keep_once().removed == 2
    assert list(list_segments(tmp_path)) == [3, 4, 5]
    # Nor does the lake hold one that got the number of one that it holds.
    for created, removed in ({**segments, 3: 5}, 0), (segments, 2):
        write_archived(tmp_path, ArchivedSegments(journal_id=house.journal_id, lake="", segments=created), present)
        assert house.keeper.keep_once().removed == removed
    assert house.alarms == [FRAMES_NOT_ARCHIVED]


def test_a_disk_that_refuses_leaves_everything_for_the_next_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("kalshi_platform.gatherer.journal.housekeeping.compress_segment", _refuse)
        assert house.keeper.keep_once() == HouseKept()
    assert house.names() == list(map(segment_name, range(1, 6)))
    assert house.keeper.keep_once() == HouseKept(compressed=4)


def _refuse(folder: Path, number: int) -> Path:
    raise OSError(5, "the disk refuses", str(folder / segment_name(number)))


def test_it_runs_once_a_minute_until_it_is_stopped(tmp_path: Path) -> None:
    house, stop = House(tmp_path), threading.Event()
    house.clock.step(2 * KEEP_S)
    wait = house.clock.wait

    def wait_then_stop(stop: threading.Event, seconds: float) -> bool:
        if len(house.clock.waits) == 2:
            stop.set()
        return wait(stop, seconds)

    house.clock.wait = wait_then_stop  # type: ignore[method-assign]
    house.keeper.run(stop)
    assert house.clock.waits == [INTERVAL_S] * 2
    assert list(list_segments(tmp_path)) == [5]
