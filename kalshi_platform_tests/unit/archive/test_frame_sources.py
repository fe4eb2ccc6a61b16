"""The segments of an hour are found wherever they are, also where a clock was set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kalshi_platform.archive.archive_frames import archive_hour, find_hours_to_archive, journal_folder
from kalshi_platform.archive.frame_sources import HourSources, fetch_hour
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
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

HOUR = datetime(2026, 11, 22, 10, tzinfo=UTC)


def frames_of_hour(sources: HourSources) -> list[bytes]:
    return [frame for journal in sources.journals for frame in frames_of(items_of(journal))]


@pytest.mark.parametrize("is_archived", [False, True])
def test_an_hour_in_which_the_clock_was_set_back_by_an_hour_has_all_its_frames(
    tmp_path: Path, *, is_archived: bool
) -> None:
    settings = GathererSettings(
        name="g1",
        timeseries_url="postgresql://nowhere/none",
        catalog_url="postgresql://nowhere/none",
        state_dir=tmp_path / "state",
    )
    clock = FakeClock(HOUR)
    journal = a_journal(journal_folder(settings), clock)
    journal.append(SESSION, batch_of([], marks=[OPENED, STREAM_OPENED]))
    # Minutes of the hour: the clock is set back at 40 to 20 minutes before the hour, and reaches the hour again.
    minutes = [0, 20, 40, -20, -10, 1, 55, 61]
    for number, minute in enumerate(minutes, 1):
        received_at_ns = int((HOUR + timedelta(minutes=minute)).timestamp()) * 10**9
        journal.append(SESSION, batch_of([b"%d" % minute], first_number=number, received_at_ns=received_at_ns))
    journal.close()
    store = None
    if is_archived:
        store = FolderStore(FolderRoot(tmp_path / "lake"))
        clock.step(2 * 3_600)
        for hour in find_hours_to_archive(settings, store.root, clock):
            archive_hour(store, settings, hour, clock)
    target = tmp_path / "fetched"
    target.mkdir()
    sources = fetch_hour(store, settings, HOUR, target)
    assert (sources.from_lake > 0) == is_archived
    found = frames_of_hour(sources)
    assert [frame for frame in found if 0 <= int(frame) < 60] == [b"0", b"20", b"40", b"1", b"55"]
