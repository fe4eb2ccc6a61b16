"""Segments are compressed once they are in the database, and removed when nothing needs them any more."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from kalshi_platform.errors import JournalUnwritable
from kalshi_platform.gatherer.journal import housekeeping
from kalshi_platform.gatherer.journal.archived import ArchivedSegments, write_archived
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.gatherer.journal.housekeeping import (
    CHECK_S,
    FRAMES_NOT_ARCHIVED,
    INTERVAL_S,
    Housekeeping,
    HouseKept,
)
from kalshi_platform.gatherer.journal.segments import compressed_name, created_ns, list_segments, segment_name
from kalshi_platform.gatherer.journal.writer import RETRY_S, JournalLimits
from kalshi_platform.market.frames import FrameBatch
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
        self.excess_bytes = 0
        self.waits: list[str | None] = []
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
            excess_bytes=lambda: self.excess_bytes,
            on_waiting=self.waits.append,
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


def run_for(house: House, checks: int) -> None:
    stop, wait = threading.Event(), house.clock.wait

    def wait_then_stop(stop: threading.Event, seconds: float) -> bool:
        if len(house.clock.waits) == checks:
            stop.set()
        return wait(stop, seconds)

    house.clock.wait = wait_then_stop  # type: ignore[method-assign]
    house.keeper.run(stop)


@pytest.mark.parametrize(("checks", "segments"), [(11, [1, 2, 3, 4, 5]), (12, [5])])
def test_it_runs_once_a_minute_until_it_is_stopped(tmp_path: Path, checks: int, segments: list[int]) -> None:
    house = House(tmp_path)
    house.clock.step(2 * KEEP_S)
    run_for(house, checks)
    assert house.clock.waits == [CHECK_S] * checks
    assert CHECK_S * 12 == INTERVAL_S
    assert list(list_segments(tmp_path)) == segments


def test_where_there_is_little_room_the_oldest_go_at_once_before_their_time_and_no_more_than_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path)
    monkeypatch.setattr("kalshi_platform.gatherer.journal.housekeeping.compress_segment", _refuse)
    events: list[str] = []
    monkeypatch.setattr(housekeeping._log, "warning", lambda event, **_: events.append(event))
    sizes = [path.stat().st_size for path in list_segments(tmp_path).values()]
    house.excess_bytes = sizes[0] + 1
    run_for(house, 1)
    assert list(list_segments(tmp_path)) == [3, 4, 5]
    house.excess_bytes = 0
    house.keeper.keep_once()
    assert list(list_segments(tmp_path)) == [3, 4, 5]
    house.excess_bytes = 10**9
    # A disk that has no room to compress has room to remove.
    assert house.keeper.keep_once() == HouseKept(removed=2)
    assert events.count("segments_removed_early") == 1


@pytest.mark.parametrize("archive_frames", [False, True])
def test_what_the_oldest_segment_waits_for_is_said(tmp_path: Path, *, archive_frames: bool) -> None:
    house = House(tmp_path, archive_frames=archive_frames)
    house.excess_bytes = 1
    house.committed = None
    house.keeper.keep_once()
    house.committed = Position(1, 0)
    house.keeper.keep_once()
    assert house.waits == ["its database"] * 2
    house.committed = Position(5, 0)
    house.keeper.keep_once()
    assert house.waits[2:] == ["the lake" if archive_frames else None]


def test_a_journal_at_its_limit_is_written_again_when_everything_is_in_the_database(tmp_path: Path) -> None:
    clock = FakeClock()
    limits = JournalLimits(segment_bytes=2_000, max_bytes=20_000, min_free_bytes=0)
    journal = a_journal(tmp_path, clock, limits=limits)
    committed: list[Position | None] = [None]
    keeper = Housekeeping(
        tmp_path,
        journal.journal_id,
        clock,
        keep_s=KEEP_S,
        archive_frames=False,
        committed=lambda: committed[0],
        excess_bytes=lambda: journal.fill().excess,
        on_waiting=lambda waits_for: setattr(journal, "waits_for", waits_for),
    )
    rest = FrameBatch([os.urandom(500)], [clock.now_ns()], [0], [0], [8])
    while journal.blocked_reason is None:
        keeper.keep_once()
        with contextlib.suppress(JournalUnwritable):
            journal.append(0, rest)
    assert "make its database take what waits, or raise" in journal.blocked_reason
    committed[0] = journal.end
    keeper.keep_once()
    clock.step(RETRY_S)
    assert journal.is_writable()
    assert journal.fill().excess == 0
    assert len(list_segments(tmp_path)) > 3
    journal.close()
