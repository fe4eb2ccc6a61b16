"""The schedule of frames requests what journals of this host hold and the lake does not, and its runs archive it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from kalshi_platform import config
from kalshi_platform.gatherer.journal.segments import FOLDER
from kalshi_platform.lake.frame_archive import FramesPartition, read_frames_manifest
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.orchestration.build import CodeLocation, build
from kalshi_platform.orchestration.in_process_ticks import DoneTick, InProcessTicks
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.journals import OPENED, SESSION, STREAM_OPENED, a_journal, batch_of

HOUR = datetime(2026, 11, 22, 20, tzinfo=UTC)
START = datetime(2026, 11, 22, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of two gatherers, whose journals lie in its state folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dagster").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("KALSHI_GATHERERS", "g1,g2")
    monkeypatch.setenv("KALSHI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("KALSHI_LAKE_ROOT", (tmp_path / "lake").as_uri())
    monkeypatch.setenv("KALSHI_PARTITIONS_START", START.isoformat())
    for name in ("G1", "G2"):
        for kind in ("TIMESERIES", "CATALOG"):
            monkeypatch.setenv(f"KALSHI_{name}_{kind}_DATABASE_URL", "postgresql://nowhere/none")
    return tmp_path


def record(host: Path, gatherer: str, hours: int) -> None:
    clock = FakeClock(HOUR)
    journal = a_journal(host / "state" / gatherer / FOLDER, clock)
    for number in range(hours):
        marks = () if number else (OPENED, STREAM_OPENED)
        batch = batch_of([b"{}"], first_number=number + 1, received_at_ns=clock.now_ns(), marks=marks)
        journal.append(SESSION, batch)
        clock.step(3_600)
    journal.close()


def tick(location: CodeLocation, moment: datetime) -> DoneTick:
    ticks = InProcessTicks()
    ticks._definitions = build(location)
    with ticks:
        return ticks.evaluate("archive_frames_schedule", moment)


def test_hours_that_are_not_in_the_lake_are_archived_by_the_schedule(host: Path) -> None:
    record(host, "g1", 3)
    record(host, "g2", 1)
    location = CodeLocation(config.Role(), ("g1", "g2"), START)
    due = HOUR + timedelta(hours=3, minutes=3)
    with InProcessTicks() as ticks:
        assert [name for _, name in ticks.due(due - MINUTE, due)] == ["archive_frames_schedule"]
    done = tick(location, due)
    assert not done.error
    assert [(run.success, run.partitions, sorted(run.assets)) for run in done.runs] == [
        (True, ("2026-11-22-20:00",), ["lake/raw/frames/g1", "lake/raw/frames/g2"]),
        (True, ("2026-11-22-21:00", "2026-11-22-22:00"), ["lake/raw/frames/g1"]),
    ]
    store = FolderStore(FolderRoot(host / "lake"))
    for gatherer, hours in (("g1", 3), ("g2", 1)):
        for number in range(hours):
            manifest = read_frames_manifest(store, FramesPartition(gatherer, HOUR + timedelta(hours=number)))
            assert manifest is not None
            assert (manifest.state, manifest.frames) == ("closed", 1)
    with dg.DagsterInstance.get() as instance:
        (event,) = instance.fetch_materializations(dg.AssetKey(["lake", "raw", "frames", "g2"]), limit=10).records
        assert event.asset_materialization is not None
        metadata = {key: each.value for key, each in event.asset_materialization.metadata.items()}
    assert (metadata["dagster/partition_row_count"], metadata["state"], metadata["segments"]) == (1, "closed", 1)
    again = tick(location, due + 30 * MINUTE)
    assert (again.runs, again.skipped) == ([], "the lake holds every finished segment of the journals on this host")


def test_without_a_lake_the_schedule_says_what_is_missing(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(host, "g1", 1)
    monkeypatch.delenv("KALSHI_LAKE_ROOT")
    assert not config.archives_frames()
    done = tick(CodeLocation(config.Role(), ("g1", "g2"), START), HOUR + timedelta(hours=1, minutes=3))
    assert "KALSHI_LAKE_ROOT is missing" in done.skipped
