"""Finished segments reach the lake whole, are read back, and only then may be removed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec
import pyarrow as pa
import pytest
from filelock import FileLock

from kalshi_platform.archive import archive_frames
from kalshi_platform.archive.archive_frames import (
    ArchivedHour,
    archive_hour,
    find_hours_to_archive,
    journal_folder,
    verify_hour,
)
from kalshi_platform.archive.frame_sources import fetch_hour
from kalshi_platform.errors import ConfigurationError, LakeCorrupt, LakeUnavailable, PartitionBusy
from kalshi_platform.gatherer.journal import segment_reader, segments
from kalshi_platform.gatherer.journal.archived import read_archived
from kalshi_platform.gatherer.journal.block_format import SegmentInfo
from kalshi_platform.gatherer.journal.keeping import compress_segment
from kalshi_platform.gatherer.journal.segments import compressed_name
from kalshi_platform.gatherer.journal.segments import segment_name as plain_name
from kalshi_platform.gatherer.journal.writer import JournalWriter
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.lake.frame_archive import FramesManifest, FramesPartition, read_frames_manifest
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.failing_store import WAYS, FailingStore, Killed, Way
from kalshi_platform_tests.fixtures.journals import (
    OPENED,
    SESSION,
    STREAM_OPENED,
    a_journal,
    batch_of,
    frames_of,
    items_of,
)

HOUR = datetime(2026, 11, 22, 20, tzinfo=UTC)
FRAMES = [b'{"n":%d}' % number for number in range(40)]
PER_BLOCK, SEGMENT_BYTES = 5, 400


class World:
    """A gatherer that records on this host, and a lake."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(HOUR)
        self.settings = GathererSettings(
            name="g1",
            timeseries_url="postgresql://nowhere/none",
            catalog_url="postgresql://nowhere/none",
            state_dir=folder / "state",
        )
        self.store = FolderStore(FolderRoot(folder / "lake"))
        self.journal: JournalWriter = self.open()
        self.lock = FileLock(self.settings.folder / ".lock", 0, fallback_to_soft=False)
        self.lock.acquire()
        self.number = 0

    def open(self) -> JournalWriter:
        return a_journal(journal_folder(self.settings), self.clock, segment_bytes=SEGMENT_BYTES)

    def record(self, frames: list[bytes]) -> None:
        for at in range(0, len(frames), PER_BLOCK):
            marks = () if self.number else (OPENED, STREAM_OPENED)
            part = frames[at : at + PER_BLOCK]
            batch = batch_of(part, first_number=self.number + 1, received_at_ns=self.clock.now_ns(), marks=marks)
            self.journal.append(SESSION, batch)
            self.number += len(part)

    def next_hour(self) -> None:
        self.clock.step(3_600)
        self.record([b"{}"])

    def archive(self, hour: datetime = HOUR) -> ArchivedHour:
        return archive_hour(self.store, self.settings, hour, self.clock)

    def manifest(self, hour: datetime = HOUR) -> FramesManifest:
        found = read_frames_manifest(self.store, FramesPartition("g1", hour))
        assert found is not None
        return found

    def archived_frames(self, hour: datetime = HOUR) -> list[bytes]:
        folder = Path(self.store.address(FramesPartition("g1", hour).path))
        return frames_of(items_of([folder / each.name for each in self.manifest(hour).segments]))

    def waiting(self) -> list[datetime]:
        return find_hours_to_archive(self.settings, self.store.root, self.clock)

    def numbers(self) -> set[int]:
        archived = read_archived(journal_folder(self.settings))
        return set() if archived is None else set(archived.segments)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()
    made.lock.release(force=True)


def test_an_hour_that_is_over_is_archived_byte_for_byte_and_closed(world: World) -> None:
    world.record(FRAMES)
    world.next_hour()
    assert world.waiting() == [HOUR]
    done = world.archive()
    manifest = world.manifest()
    assert done == ArchivedHour(FramesPartition("g1", HOUR), manifest, len(manifest.segments))
    assert len(manifest.segments) > 2
    assert (manifest.state, manifest.frames, manifest.damages) == ("closed", len(FRAMES), 0)
    assert (manifest.time_min, manifest.time_max) == (HOUR, HOUR)
    assert {each.journal_id for each in manifest.segments} == {world.journal.journal_id}
    raw = [journal_folder(world.settings) / plain_name(each.number) for each in manifest.segments]
    assert [each.bytes_raw for each in manifest.segments] == [path.stat().st_size for path in raw]
    assert world.archived_frames() == FRAMES
    assert world.numbers() == {each.number for each in manifest.segments}
    assert world.waiting() == []
    assert verify_hour(world.store, "g1", HOUR) == manifest


def test_the_running_hour_is_open_and_grows_until_its_last_segment_is_finished(world: World) -> None:
    world.record(FRAMES[:20])
    first = world.archive()
    assert first.manifest is not None
    assert first.manifest.state == "open"
    held = first.manifest.frames
    assert 0 < held < 20
    world.clock.step(3_599)
    world.record(FRAMES[20:])
    assert world.waiting() == [HOUR]
    world.clock.step(2)
    # The hour is over, and nothing says yet that its last segment is finished.
    assert world.archive().manifest == world.manifest()
    assert world.manifest().state == "open"
    assert world.waiting() == []
    world.record([b"{}"])
    assert world.waiting() == [HOUR]
    last = world.archive()
    assert last.manifest is not None
    assert (last.manifest.state, last.manifest.frames) == ("closed", len(FRAMES))
    assert world.archived_frames() == FRAMES


def test_a_repetition_changes_nothing_in_the_lake(world: World) -> None:
    world.record(FRAMES)
    world.next_hour()
    world.archive()
    store = FailingStore(world.store)
    before = world.manifest()
    world.clock.step(60)
    again = archive_hour(store.as_store, world.settings, HOUR, world.clock)
    assert (again.manifest, again.added, store.changes) == (before, 0, [])


def test_compressed_segments_are_archived_as_they_are(world: World) -> None:
    world.record(FRAMES)
    world.next_hour()
    folder = journal_folder(world.settings)
    content = compress_segment(folder, 1).read_bytes()
    world.archive()
    assert world.store.read(f"{FramesPartition('g1', HOUR).path}/{compressed_name(1)}") == content
    assert world.archived_frames() == FRAMES


def test_a_segment_that_is_compressed_while_it_is_archived_is_found_under_its_new_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.record(FRAMES)
    world.next_hour()
    read_info = archive_frames.read_info

    def compress_then_read(path: Path, gatherer: str, number: int, journal_id: int | None) -> SegmentInfo:
        info = read_info(path, gatherer, number, journal_id)
        if number == 1:
            compress_segment(path.parent, number)
        return info

    monkeypatch.setattr(archive_frames, "read_info", compress_then_read)
    world.archive()
    assert world.archived_frames() == FRAMES


def test_the_last_segment_of_a_gatherer_that_ended_is_archived(world: World) -> None:
    world.record(FRAMES)
    world.journal.close()
    world.lock.release(force=True)
    world.clock.step(7_200)
    assert world.waiting() == [HOUR]
    manifest = world.archive().manifest
    assert manifest is not None
    assert (manifest.state, manifest.frames) == ("closed", len(FRAMES))


def test_an_hour_without_segments_gives_nothing(world: World) -> None:
    world.record(FRAMES)
    earlier = HOUR - timedelta(hours=1)
    assert world.archive(earlier) == ArchivedHour(FramesPartition("g1", earlier), None, 0)
    assert verify_hour(world.store, "g1", earlier) is None
    assert list(world.store.list("")) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_wherever_a_run_is_cut_short_nothing_is_recorded_that_the_lake_does_not_hold(
    world: World, way: Way, at: int
) -> None:
    """Its changes are: the segments, the manifest, the index."""
    world.record(FRAMES)
    world.next_hour()
    failing = FailingStore(world.store, at, way)
    with pytest.raises((LakeUnavailable, Killed)):
        archive_hour(failing.as_store, world.settings, HOUR, world.clock)
    assert len(failing.changes) == at + 1
    assert world.numbers() == set()
    assert world.waiting() == [HOUR]
    manifest = world.archive().manifest
    assert manifest is not None
    assert manifest.state == "closed"
    assert world.archived_frames() == FRAMES
    assert world.waiting() == []


def test_a_segment_that_does_not_arrive_as_it_was_is_not_recorded(world: World) -> None:
    world.record(FRAMES)
    world.next_hour()
    path = f"{FramesPartition('g1', HOUR).path}/{compressed_name(2)}"

    def damage(change: str) -> None:
        if change.startswith("write"):
            raise AssertionError("no manifest may be written")

    store = FailingStore(world.store, on_change=damage)
    put_files = world.store.put_files

    def put_damaged(files: dict[str, Path]) -> None:
        put_files(files)
        content = bytearray(world.store.read(path) or b"")
        content[len(content) // 2] ^= 1
        world.store.write(path, bytes(content))

    store.store = _Putting(world.store, put_damaged)  # type: ignore[assignment]
    with pytest.raises(LakeCorrupt, match=r"000000000002\.journal\.zst is not what was stored"):
        archive_hour(store.as_store, world.settings, HOUR, world.clock)
    assert world.numbers() == set()
    # The next run compares what lies there, and puts it right.
    assert world.archive().manifest is not None
    assert world.archived_frames() == FRAMES


class _Putting:
    """A store whose `put_files` is another."""

    def __init__(self, store: FolderStore, put_files: object) -> None:
        self._store = store
        self.put_files = put_files

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_a_segment_damaged_later_is_found_and_stored_again(world: World) -> None:
    world.record(FRAMES)
    world.next_hour()
    world.archive()
    path = f"{FramesPartition('g1', HOUR).path}/{compressed_name(1)}"
    world.store.write(path, b"x")
    with pytest.raises(LakeCorrupt, match=r"000000000001\.journal\.zst has 1 bytes"):
        verify_hour(world.store, "g1", HOUR)
    assert world.archive().added == 1
    assert verify_hour(world.store, "g1", HOUR) == world.manifest()
    assert world.archived_frames() == FRAMES


@pytest.mark.parametrize("content", [None, b"{"])
def test_a_lost_manifest_is_made_anew_from_the_segments_in_the_lake(world: World, content: bytes | None) -> None:
    world.record(FRAMES)
    world.next_hour()
    world.archive()
    before, path = world.manifest(), FramesPartition("g1", HOUR).manifest_path
    # The journal has the last segments of the hour left.
    for number in (1, 2, 3):
        (journal_folder(world.settings) / plain_name(number)).unlink()
    if content is None:
        world.store.delete(path)
    else:
        world.store.write(path, content)
    world.archive()
    assert msgspec.structs.replace(world.manifest(), archived_at=before.archived_at) == before
    assert world.archived_frames() == FRAMES


def test_a_damaged_block_is_archived_with_its_segment_and_counted(world: World) -> None:
    world.record(FRAMES)
    world.next_hour()
    path = journal_folder(world.settings) / plain_name(2)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    manifest = world.archive().manifest
    assert manifest is not None
    assert manifest.damages == 1
    assert manifest.frames == len(FRAMES) - PER_BLOCK
    assert verify_hour(world.store, "g1", HOUR) == manifest


def test_a_segment_whose_header_is_damaged_is_archived_in_the_hour_of_its_blocks(world: World) -> None:
    world.record(FRAMES)
    world.next_hour()
    path = journal_folder(world.settings) / plain_name(2)
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(bytes(content))
    manifest = world.archive().manifest
    assert manifest is not None
    assert (manifest.frames, manifest.segments[1].damages) == (len(FRAMES), 1)
    assert manifest.segments[1].journal_id == world.journal.journal_id


@pytest.mark.parametrize("bad_page", [0, 2])
def test_a_segment_that_its_disk_cannot_read_everywhere_is_archived_without_that_and_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, bad_page: int
) -> None:
    world.journal.close()
    world.journal = a_journal(journal_folder(world.settings), world.clock, segment_bytes=40_000)
    frames = [b'{"n":%d}' % number + b" " * 400 for number in range(400)]
    world.record(frames)
    world.next_hour()
    path = journal_folder(world.settings) / plain_name(3)
    written_s = HOUR.timestamp() + 60
    os.utime(path, (written_s, written_s))
    bad, low = path.stat().st_ino, 4_096 * bad_page
    read_some, pread, copyfile = segments.read_some, os.pread, shutil.copyfile

    def fail() -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def read_part(file: BinaryIO, size: int) -> bytes:
        is_bad = not isinstance(file, pa.NativeFile) and os.fstat(file.fileno()).st_ino == bad
        return fail() if is_bad and file.tell() <= low < file.tell() + size else read_some(file, size)

    def pread_part(descriptor: int, size: int, at: int) -> bytes:
        return fail() if os.fstat(descriptor).st_ino == bad and at == low else pread(descriptor, size, at)

    def copy(source: Path, target: Path) -> Path:
        return fail() if source.stat().st_ino == bad else Path(copyfile(source, target))

    monkeypatch.setattr(segments, "read_some", read_part)
    monkeypatch.setattr(segment_reader, "read_some", read_part)
    monkeypatch.setattr("kalshi_platform.archive.archive_frames.os.pread", pread_part)
    monkeypatch.setattr("kalshi_platform.archive.archive_frames.shutil.copyfile", copy)
    assert world.waiting() == [HOUR]
    manifest = world.archive().manifest
    assert manifest is not None
    assert [each.damages > 0 for each in manifest.segments] == [each.number == 3 for each in manifest.segments]
    assert len(frames) - 40 < manifest.frames < len(frames) + (bad_page == 0)
    assert world.numbers() == {each.number for each in manifest.segments}
    assert world.waiting() == []


def test_a_journal_begun_anew_within_the_hour_stands_beside_the_one_before(world: World) -> None:
    world.record(FRAMES[:20])
    world.journal.close()
    world.lock.release(force=True)
    world.archive()
    before = world.manifest()
    folder = journal_folder(world.settings)
    folder.rename(folder.with_name("lost"))
    world.journal, world.number = world.open(), 0
    world.lock.acquire()
    world.record(FRAMES[20:])
    world.next_hour()
    assert world.waiting() == [HOUR]
    world.archive()
    manifest = world.manifest()
    assert manifest.segments[: len(before.segments)] == before.segments
    assert manifest.frames == len(FRAMES)
    first = manifest.segments[len(before.segments)]
    assert first.name == f"000000000001-{first.created_at_ns:016x}.journal.zst"
    assert verify_hour(world.store, "g1", HOUR) == manifest
    assert world.waiting() == []


def test_a_segment_with_the_number_of_a_lost_one_is_archived_beside_it(world: World) -> None:
    world.record(FRAMES[:20])
    world.journal.close()
    world.lock.release(force=True)
    world.archive()
    before = world.manifest()
    folder = journal_folder(world.settings)
    for number in range(2, len(before.segments) + 1):
        (folder / plain_name(number)).unlink()
    world.clock.step(60)
    world.journal, world.number = world.open(), 0
    world.lock.acquire()
    world.record(FRAMES[20:])
    world.next_hour()
    assert world.waiting() == [HOUR]
    world.archive()
    manifest = world.manifest()
    assert {each.name for each in before.segments} < {each.name for each in manifest.segments}
    assert manifest.frames == len(FRAMES)
    assert verify_hour(world.store, "g1", HOUR) == manifest
    assert world.waiting() == []
    # All of them are found for a rebuild, those of one number in lists of their own.
    fetched = world.settings.folder / "fetched"
    fetched.mkdir()
    sources = fetch_hour(world.store, world.settings, HOUR, fetched)
    assert len(sources.journals) == 2
    assert [frame for paths in sources.journals for frame in frames_of(items_of(paths))][: len(FRAMES)] == FRAMES


def test_another_lake_gets_everything_that_is_still_there(world: World, tmp_path: Path) -> None:
    world.record(FRAMES)
    world.next_hour()
    world.archive()
    world.store = FolderStore(FolderRoot(tmp_path / "another"))
    assert world.waiting() == [HOUR]
    world.archive()
    assert world.archived_frames() == FRAMES


def test_two_runs_at_once_and_a_missing_journal_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.record(FRAMES)
    monkeypatch.setattr(archive_frames, "_LOCK_PATIENCE_S", 0.0)
    with FileLock(journal_folder(world.settings) / "archive.lock"), pytest.raises(PartitionBusy, match="another run"):
        world.archive()
    elsewhere = msgspec.convert(
        {"name": "g2", "timeseries_url": "postgresql://a/b", "catalog_url": "postgresql://a/b"}, dict[str, str]
    )
    with pytest.raises(ConfigurationError, match="there is no journal"):
        archive_hour(
            world.store,
            GathererSettings(**elsewhere, state_dir=world.settings.state_dir),  # type: ignore[arg-type]
            HOUR,
            world.clock,
        )


def test_a_record_of_the_archive_that_cannot_be_read_is_made_anew(world: World) -> None:
    world.record(FRAMES)
    world.next_hour()
    world.archive()
    numbers = world.numbers()
    file = journal_folder(world.settings) / "archived.json"
    assert {int(each) for each in json.loads(file.read_bytes())["segments"]} == numbers
    file.write_bytes(b"{")
    assert world.waiting() == [HOUR]
    assert world.archive().added == 0
    assert world.numbers() == numbers
