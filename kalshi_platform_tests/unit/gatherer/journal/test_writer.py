"""Writing a journal: segments and what they restate, limits, disks that are full, folders that are not ours."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kalshi_platform.errors import ConfigurationError, JournalUnwritable
from kalshi_platform.gatherer.journal import writer as writer_module
from kalshi_platform.gatherer.journal.block_format import Block, Position, SegmentInfo, encode_segment_header
from kalshi_platform.gatherer.journal.keeping import compress_segment, remove_segments
from kalshi_platform.gatherer.journal.segments import (
    bytes_of_segments,
    fsync_folder,
    list_segments,
    read_segment_info,
    segment_name,
)
from kalshi_platform.gatherer.journal.writer import NO_SESSION, RETRY_S, JournalLimits, JournalWriter, open_journal
from kalshi_platform.market.frames import FrameBatch, GathererStarted, Mark
from kalshi_platform.market.records import BookSubscriptionStarted, SessionClosed, StreamEnded
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.disk import full_disk
from kalshi_platform_tests.fixtures.journals import (
    OPENED,
    RECEIVED_NS,
    SESSION,
    STREAM,
    STREAM_OPENED,
    a_journal,
    batch_of,
    damages_of,
    frames_of,
    items_of,
)

HOUR_NS = 3_600 * 10**9
CLOSED = SessionClosed(SESSION, 9, "stopped")


def blocks_of(folder: Path) -> list[Block]:
    items = items_of(folder)
    assert damages_of(items) == []
    return [item for item in items if isinstance(item, Block)]


def marks_of(block: Block) -> list[Mark]:
    return [mark for _, mark in block.batch.marks]


def opened(folder: Path, clock: FakeClock | None = None, segment_bytes: int = 64 * 1024**2) -> JournalWriter:
    journal = a_journal(folder, clock, segment_bytes=segment_bytes)
    journal.append(SESSION, batch_of([], marks=[OPENED, STREAM_OPENED]))
    return journal


def test_a_journal_begins_with_the_start_of_its_process_and_ends_where_it_says(tmp_path: Path) -> None:
    journal = opened(tmp_path / "g1" / "journal")
    end = journal.append(SESSION, batch_of([b"a", b"bc"]))
    journal.close()
    start, first, second = blocks_of(journal.folder)
    assert [type(mark) for mark in marks_of(start)] == [GathererStarted]
    assert (start.session_id, start.number) == (NO_SESSION, 0)
    assert (first.session_id, first.marks_before, second.marks_before) == (SESSION, 0, 2)
    assert second.batch == batch_of([b"a", b"bc"])
    assert [stream.sid for stream in second.streams] == [STREAM_OPENED.sid]
    assert second.end == end == journal.end
    assert journal.append(SESSION, FrameBatch()) == end


def test_a_full_segment_is_followed_by_one_that_restates_what_is_open(tmp_path: Path) -> None:
    journal = opened(tmp_path, segment_bytes=600)
    started = BookSubscriptionStarted(STREAM, "T", 1)
    for number in range(1, 9):
        journal.append(SESSION, batch_of([b"x" * 100], first_number=number, marks=[started]))
    journal.append(SESSION, batch_of([], marks=[StreamEnded(STREAM, 8, "over"), CLOSED]))
    for _ in range(6):
        journal.append(NO_SESSION, FrameBatch([b"y" * 100], [RECEIVED_NS], [0], [0], [8]))
    journal.close()
    blocks = blocks_of(tmp_path)
    segments = list_segments(tmp_path)
    assert list(segments) == list(range(1, len(segments) + 1))
    infos = [read_segment_info(path) for path in segments.values()]
    counts = [sum(block.position.segment == number for block in blocks) for number in segments]
    assert [info.former_blocks for info in infos] == [None, *counts[:-1]]
    assert {info.journal_id for info in infos} == {journal.journal_id}
    seen = 0
    for block in blocks:
        if block.restated:
            assert marks_of(block) == [OPENED, STREAM_OPENED]
        if block.session_id == SESSION:
            assert block.marks_before == seen
            seen += 0 if block.restated else len(block.batch.marks)
    restated = [block.position.segment for block in blocks if block.restated]
    assert restated == list(range(2, restated[-1] + 1))
    assert restated[-1] < len(segments)


def test_a_new_hour_begins_a_segment_and_a_step_back_of_the_clock_does_not(tmp_path: Path) -> None:
    clock = FakeClock()
    journal = opened(tmp_path, clock)
    for seconds in (10, 3_599, 3_600, 3_598, 7_300):
        journal.append(SESSION, batch_of([b"%d" % seconds], received_at_ns=RECEIVED_NS + seconds * 10**9))
    journal.append(SESSION, batch_of([b"back"], received_at_ns=RECEIVED_NS - 7_200 * 10**9))
    journal.close()
    segments = {
        number: b" ".join(frames_of([block for block in blocks_of(tmp_path) if block.position.segment == number]))
        for number in list_segments(tmp_path)
    }
    assert segments == {1: b"10 3599", 2: b"3600 3598", 3: b"7300", 4: b"back"}
    infos = [read_segment_info(path) for path in list_segments(tmp_path).values()]
    assert [(info.received_from_ns - RECEIVED_NS) // HOUR_NS for info in infos] == [0, 1, 2, -2]


def test_another_process_goes_on_in_the_next_segment_of_the_same_journal(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.append(SESSION, batch_of([b"a"]))
    first.close()
    second = a_journal(tmp_path)
    assert second.journal_id == first.journal_id
    assert second.end == blocks_of(tmp_path)[-1].end
    assert second.end.segment == 2
    second.append(NO_SESSION, FrameBatch([b"b"], [RECEIVED_NS], [0], [0], [8]))
    second.close()
    assert read_segment_info(tmp_path / segment_name(2)).former_blocks is None
    assert frames_of(items_of(tmp_path)) == [b"a", b"b"]
    assert not any(block.restated for block in blocks_of(tmp_path))


def test_what_was_appended_survives_a_process_that_ends_hard(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from kalshi_platform_tests.fixtures.journals import *;"
        "journal = a_journal(Path(sys.argv[1]));"
        "journal.append(SESSION, batch_of([b'a', b'b'], marks=[OPENED, STREAM_OPENED]));"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert frames_of(items_of(tmp_path)) == [b"a", b"b"]


@pytest.mark.parametrize("room", [0, 40, 60])
def test_a_full_disk_refuses_frames_keeps_marks_and_is_written_again_when_there_is_room(
    tmp_path: Path, room: int
) -> None:
    clock = FakeClock()
    journal = opened(tmp_path, clock)
    journal.append(SESSION, batch_of([b"before"]))
    end = journal.end
    with full_disk(end.offset + room):
        with pytest.raises(JournalUnwritable, match=r"cannot be written .*make room"):
            journal.append(SESSION, batch_of([b"x" * 200], first_number=2))
        assert (tmp_path / segment_name(1)).stat().st_size == end.offset
        assert journal.end == end
        assert journal.blocked_reason
        assert journal.append(SESSION, batch_of([], marks=[CLOSED])) == end
        clock.step(RETRY_S)
        assert not journal.is_writable()
        with pytest.raises(JournalUnwritable):
            journal.append(NO_SESSION, FrameBatch([b"r" * 200], [RECEIVED_NS], [0], [0], [8]))
    clock.step(RETRY_S)
    assert journal.is_writable()
    assert journal.blocked_reason is None
    journal.append(NO_SESSION, FrameBatch([b"after"], [RECEIVED_NS], [0], [0], [8]))
    journal.close()
    blocks = blocks_of(tmp_path)
    assert frames_of(blocks)[-1] == b"after"
    [closing] = [block for block in blocks if CLOSED in marks_of(block)]
    # One more than was written: it shows that something of the session is missing.
    assert closing.marks_before == 3


def test_a_disk_that_is_full_at_the_start_gets_the_start_of_the_process_first(tmp_path: Path) -> None:
    clock = FakeClock()
    with full_disk(100):
        journal = a_journal(tmp_path, clock)
        assert journal.blocked_reason
        assert list_segments(tmp_path) == {}
    clock.step(RETRY_S)
    assert journal.is_writable()
    journal.close()
    assert [type(mark) for mark in marks_of(blocks_of(tmp_path)[0])] == [GathererStarted]


def test_a_disk_that_cannot_even_be_cut_back_begins_another_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    journal = opened(tmp_path, clock)
    end = journal.end

    def refuse(descriptor: int, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "ftruncate", refuse)
    with full_disk(end.offset + 30), pytest.raises(JournalUnwritable):
        journal.append(SESSION, batch_of([b"lost"]))
    monkeypatch.undo()
    clock.step(RETRY_S)
    assert journal.is_writable()
    journal.append(SESSION, batch_of([b"after"], first_number=2))
    journal.close()
    items = items_of(tmp_path)
    [torn] = damages_of(items)
    assert (torn.position, torn.size, torn.is_torn) == (end, 30, True)
    assert frames_of(items) == [b"after"]
    assert read_segment_info(tmp_path / segment_name(2)).former_blocks == 2


def test_a_short_write_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    monkeypatch.setattr(os, "writev", lambda descriptor, parts: os.write(descriptor, b"".join(parts)[:7]))
    journal.append(SESSION, batch_of([b"whole"]))
    journal.close()
    assert frames_of(blocks_of(tmp_path)) == [b"whole"]


def test_limits_are_kept_with_the_remedy_and_sessions_begin_only_with_room(tmp_path: Path) -> None:
    clock, free = FakeClock(), [10_000]
    journal = a_journal(
        tmp_path,
        clock,
        limits=JournalLimits(segment_bytes=1_000, max_bytes=3_000, min_free_bytes=9_000),
        free_bytes=lambda _: free[0],
    )
    journal.append(SESSION, batch_of([b"x" * 100], marks=[OPENED, STREAM_OPENED]))
    free[0] = 9_100
    with pytest.raises(JournalUnwritable, match=r"stay free.*KALSHI_JOURNAL_MIN_FREE_GIB"):
        journal.append(SESSION, batch_of([b"x" * 900], first_number=2))
    clock.step(RETRY_S)
    assert not journal.is_writable()
    free[0] = 20_000
    assert not journal.is_writable()
    clock.step(RETRY_S)
    assert journal.is_writable()
    journal.append(SESSION, batch_of([b"x" * 900], first_number=2))
    journal.append(SESSION, batch_of([b"x" * 900], first_number=3))
    with pytest.raises(JournalUnwritable, match=r"may have .*KALSHI_JOURNAL_MAX_GIB"):
        journal.append(SESSION, batch_of([b"x" * 900], first_number=4))
    assert journal.fill().share == journal.bytes_on_disk() / 3_000 > 0.6
    assert len(remove_segments(tmp_path, Position(9, 0), 2**63)) > 0
    clock.step(RETRY_S)
    assert journal.is_writable()
    journal.close()


def test_a_folder_that_turns_read_only_is_said_once_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)

    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "writev", refuse)
    with pytest.raises(JournalUnwritable) as caught:
        journal.append(SESSION, batch_of([b"x"]))
    assert caught.value.reason == f"the journal {tmp_path} cannot be written (Read-only file system)"
    assert "mounted read-only" in caught.value.remedy
    journal.close()


def test_a_failed_sync_begins_another_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    journal = opened(tmp_path, clock)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal.sync()
    monkeypatch.setattr(writer_module, "_fdatasync", fail)
    with pytest.raises(JournalUnwritable, match="see to its disk"):
        journal.sync()
    monkeypatch.undo()
    assert not journal.is_writable()
    clock.step(RETRY_S)
    assert journal.is_writable()
    assert journal.end.segment == 2
    journal.close()


def test_a_folder_of_another_gatherer_or_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    opened(tmp_path / "a").close()
    with pytest.raises(ConfigurationError, match=r"that of gatherer g1: give each gatherer .*KALSHI_STATE_DIR"):
        open_journal(tmp_path / "a", "g2", FakeClock())
    for version, remedy in ((0, "run the version that wrote it"), (2, "update kalshi-platform")):
        header = encode_segment_header(SegmentInfo(1, "g1", 2, 0, 0, "", None), version=version)
        (tmp_path / "a" / segment_name(2)).write_bytes(header)
        with pytest.raises(ConfigurationError, match=f"format version {version}, this program has 1: {remedy}"):
            a_journal(tmp_path / "a")
    # A damaged header says nothing; the one before does.
    (tmp_path / "a" / segment_name(2)).write_bytes(header[:-1])
    journal = a_journal(tmp_path / "a")
    assert journal.journal_id == read_segment_info(tmp_path / "a" / segment_name(1)).journal_id
    assert journal.end.segment == 3
    journal.close()


def test_a_folder_that_cannot_be_used_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot be read .*KALSHI_STATE_DIR"):
        a_journal(tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigurationError, match="cannot be written: let this user write it"):
        a_journal(tmp_path / "read-only")


def test_segments_are_removed_from_the_oldest_and_only_when_nothing_needs_them(tmp_path: Path) -> None:
    journal = opened(tmp_path, segment_bytes=1)
    for number in range(1, 6):
        journal.append(SESSION, batch_of([b"x"], first_number=number))
    journal.close()
    assert list(list_segments(tmp_path)) == [1, 2, 3, 4, 5, 6, 7]
    before = (tmp_path / segment_name(2)).stat().st_mtime_ns
    assert compress_segment(tmp_path, 2).stat().st_mtime_ns == before
    everything = Position(99, 0)
    assert remove_segments(tmp_path, Position(1, 10), 2**63) == []
    assert remove_segments(tmp_path, everything, 0) == []
    assert remove_segments(tmp_path, everything, 2**63, lambda number: number != 1) == []
    assert len(remove_segments(tmp_path, everything, 2**63, lambda number: number != 4)) == 3
    assert list(list_segments(tmp_path)) == [4, 5, 6, 7]
    assert len(remove_segments(tmp_path, everything, 2**63)) == 3
    assert [item.position.segment for item in items_of(tmp_path)] == [7, 7]


def test_no_place_in_a_segment_is_known_before_a_power_cut_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path, segment_bytes=600)
    ends: list[Position] = []
    sync_folder = fsync_folder

    def note(folder: Path) -> None:
        assert segment_name(journal.end.segment + 1) in {path.name for path in folder.iterdir()}
        ends.append(journal.end)
        sync_folder(folder)

    monkeypatch.setattr(writer_module, "fsync_folder", note)
    for number in range(1, 9):
        journal.append(SESSION, batch_of([b"x" * 100], first_number=number))
    assert [end.segment for end in ends] == list(range(1, journal.end.segment))
    assert len(ends) > 2
    journal.close()


def test_a_folder_that_cannot_be_synced_gets_no_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    journal = opened(tmp_path, clock, segment_bytes=400)
    journal.append(SESSION, batch_of([b"x" * 400]))
    end, segments = journal.end, list(list_segments(tmp_path))

    def refuse(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(writer_module, "fsync_folder", refuse)
        with pytest.raises(JournalUnwritable, match="cannot be written"):
            journal.append(SESSION, batch_of([b"y"], first_number=2))
        assert journal.end == end
        assert list(list_segments(tmp_path)) == segments
    clock.step(RETRY_S)
    assert journal.is_writable()
    journal.close()
    assert list(list_segments(tmp_path)) == [*segments, end.segment + 1]


def test_a_file_that_lies_where_the_next_segment_would_is_passed_over(tmp_path: Path) -> None:
    journal = opened(tmp_path, segment_bytes=400)
    (tmp_path / segment_name(journal.end.segment + 1)).touch()
    for number in range(1, 4):
        journal.append(SESSION, batch_of([b"x" * 400], first_number=number))
    journal.close()
    assert frames_of(items_of(tmp_path)) == [b"x" * 400] * 3
    assert all(damage.is_torn for damage in damages_of(items_of(tmp_path)))


def test_one_file_that_cannot_be_synced_leaves_no_other_unsynced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path, segment_bytes=400)
    for number in range(1, 4):
        journal.append(SESSION, batch_of([b"x" * 400], first_number=number))
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        if len(synced) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(writer_module, "_fdatasync", sync)
    with pytest.raises(JournalUnwritable):
        journal.sync()
    assert sorted(synced) == sorted(path.stat().st_ino for path in tmp_path.iterdir())
    journal.close()


def test_what_no_block_can_hold_is_missed_and_holds_up_nothing_behind_it(tmp_path: Path) -> None:
    clock = FakeClock()
    journal = opened(tmp_path, clock)
    unfit = batch_of([b"x"])
    unfit.numbers[0] = 2**64
    with pytest.raises(ValueError, match="no block can hold"):
        journal.append(SESSION, unfit)
    with full_disk(journal.end.offset):
        with pytest.raises(JournalUnwritable):
            journal.append(SESSION, batch_of([b"a"]))
        journal.append(SESSION, batch_of([], marks=[BookSubscriptionStarted(2**65, "T", 1)]))
        journal.append(SESSION, batch_of([], marks=[CLOSED]))
    clock.step(RETRY_S)
    assert journal.is_writable()
    journal.close()
    *_, closing, probe = blocks_of(tmp_path)
    # Two marks; three refused batches, of which one has a mark.
    assert (marks_of(closing), closing.marks_before) == ([CLOSED], 2 + 1 + 1 + 2)
    assert probe.session_id == NO_SESSION


def test_how_full_it_is_is_measured_while_others_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path, segment_bytes=400)
    journal.append(SESSION, batch_of([b"x" * 400]))
    (tmp_path / segment_name(1)).unlink()

    def append_meanwhile(folder: Path) -> int:
        measured = bytes_of_segments(folder)
        batch = batch_of([b"y" * 400], first_number=2)
        appending = threading.Thread(target=lambda: journal.append(SESSION, batch), daemon=True)
        appending.start()
        appending.join(10)
        assert not appending.is_alive()
        return measured

    monkeypatch.setattr(writer_module, "bytes_of_segments", append_meanwhile)
    assert journal.bytes_on_disk() == bytes_of_segments(tmp_path)
    journal.close()


def test_the_limit_counts_what_an_earlier_process_wrote(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(SESSION, batch_of([b"x" * 1_000]))
    journal.close()
    again = a_journal(tmp_path, limits=JournalLimits(max_bytes=1_200, min_free_bytes=0))
    assert "may have" in (again.blocked_reason or "")
    again.close()


def test_a_folder_that_is_removed_is_made_again_and_the_next_segment_begins_at_the_next_sync(tmp_path: Path) -> None:
    clock = FakeClock()
    (tmp_path / "g1").mkdir()
    journal = opened(tmp_path / "g1" / "journal", clock)
    journal.append(SESSION, batch_of([b"a"]))
    shutil.rmtree(journal.folder)
    journal.sync()
    journal.append(SESSION, batch_of([b"b"], first_number=2))
    assert frames_of(items_of(journal.folder)) == [b"b"]
    # A disk that is not mounted is no folder that was removed.
    shutil.rmtree(tmp_path / "g1")
    journal.sync()
    with pytest.raises(JournalUnwritable, match="is its disk mounted"):
        journal.append(SESSION, batch_of([b"c"], first_number=3))
    (tmp_path / "g1").mkdir()
    clock.step(RETRY_S)
    assert journal.is_writable()
    journal.append(SESSION, batch_of([b"d"], first_number=4))
    assert frames_of(items_of(journal.folder)) == [b"d"]
    journal.close()
