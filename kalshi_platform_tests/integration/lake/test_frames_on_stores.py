"""Frames reach both kinds of root, and are read back from there."""

from __future__ import annotations

from pathlib import Path

from kalshi_platform.archive.archive_frames import archive_hour, find_hours_to_archive, journal_folder, verify_hour
from kalshi_platform.archive.frame_sources import fetch_hour
from kalshi_platform.gatherer.journal.segments import list_segments
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.journals import (
    OPENED,
    SESSION,
    STREAM_OPENED,
    a_journal,
    batch_of,
    frames_of,
    items_of,
)


def test_an_hour_of_frames_comes_back_from_the_store_as_it_was(lake_settings: LakeSettings, tmp_path: Path) -> None:
    gatherer = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=tmp_path / "state")
    clock, folder = FakeClock(), journal_folder(gatherer)
    hour, frames = clock.now(), [b'{"n":%d}' % number for number in range(50)]
    journal = a_journal(folder, clock, segment_bytes=1_000)
    for at in range(0, 50, 5):
        marks = () if at else (OPENED, STREAM_OPENED)
        received_at_ns = clock.now_ns()
        batch = batch_of(frames[at : at + 5], first_number=at + 1, received_at_ns=received_at_ns, marks=marks)
        journal.append(SESSION, batch)
    journal.close()
    clock.step(3_600)
    store = open_store(lake_settings)
    done = archive_hour(lake_settings, gatherer, hour, clock)
    assert done.manifest is not None
    assert (done.manifest.state, done.manifest.frames, done.added) == ("closed", 50, len(list_segments(folder)))
    assert verify_hour(lake_settings, "g1", hour) == done.manifest
    assert find_hours_to_archive(gatherer, store.root, clock) == []
    for path in list_segments(folder).values():
        path.unlink()
    (tmp_path / "back").mkdir()
    sources = fetch_hour(store, gatherer, hour, tmp_path / "back")
    (paths,) = sources.journals
    assert (frames_of(items_of(paths)), sources.from_journal) == (frames, 0)
