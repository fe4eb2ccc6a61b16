"""The schedule of frames requests what journals of this host hold and the lake does not, and its runs archive it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.gatherer.journal.segments import FOLDER
from kalshi_platform.lake.frame_archive import FramesPartition, read_frames_manifest
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.market.times import hour_of
from kalshi_platform.orchestration.assets.lake_frames import make_frames_asset
from kalshi_platform.orchestration.jobs.batch import make_archive_frames_job
from kalshi_platform.orchestration.keys import frames
from kalshi_platform.orchestration.partitions import RANGE_END, RANGE_START, hour_key, make_running_hours
from kalshi_platform.orchestration.resources import RESOURCES, PlatformResource
from kalshi_platform.orchestration.schedules.frames import make_frames_schedule, request_unarchived
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.journals import OPENED, SESSION, STREAM_OPENED, a_journal, batch_of

HOUR = datetime(2026, 11, 22, 20, tzinfo=UTC)
START = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of two gatherers, whose journals lie in its state folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KALSHI_GATHERERS", "g1,g2")
    monkeypatch.setenv("KALSHI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("KALSHI_LAKE_ROOT", (tmp_path / "lake").as_uri())
    monkeypatch.setenv("KALSHI_PARTITIONS_START", START.isoformat())
    for name in ("G1", "G2"):
        for kind in ("TIMESERIES", "CATALOG"):
            monkeypatch.setenv(f"KALSHI_{name}_{kind}_DATABASE_URL", "postgresql://nowhere/none")
    return tmp_path


def record(host: Path, gatherer: str, hours: int, moment: datetime = HOUR) -> None:
    clock = FakeClock(moment)
    journal = a_journal(host / "state" / gatherer / FOLDER, clock)
    for number in range(hours):
        marks = () if number else (OPENED, STREAM_OPENED)
        batch = batch_of([b"{}"], first_number=number + 1, received_at_ns=clock.now_ns(), marks=marks)
        journal.append(SESSION, batch)
        clock.step(3_600)
    journal.close()


class Host:
    """What the code location of the gatherers' host has of the archive, and an instance of Dagster."""

    def __init__(self, names: tuple[str, ...], instance: dg.DagsterInstance) -> None:
        hours, self.instance, self.names = make_running_hours(START), instance, names
        self.definitions = dg.Definitions(
            assets=[make_frames_asset(name, hours) for name in names],
            jobs=[make_archive_frames_job(names)],
            resources=RESOURCES,
            executor=dg.in_process_executor,
        )

    def requests(self, busy: set[str] | None = None) -> list[dg.RunRequest]:
        """What the schedule would request now."""
        return request_unarchived(PlatformResource(), config.load_lake(), self.names, START, busy or set())

    def run(self, request: dg.RunRequest) -> tuple[list[str], tuple[str, ...]]:
        """Do what was requested; return assets and partitions."""
        assets = list(request.asset_selection or ())
        done = self.definitions.resolve_job_def("archive_frames").execute_in_process(
            instance=self.instance, asset_selection=assets, partition_key=request.partition_key, tags=request.tags
        )
        assert done.success
        span = (request.tags.get(RANGE_START), request.tags.get(RANGE_END))
        keys = (request.partition_key,) if request.partition_key else tuple(filter(None, span))
        return sorted(key.to_user_string() for key in assets), keys


def test_hours_that_are_not_in_the_lake_are_archived_by_the_schedule(host: Path, instance: dg.DagsterInstance) -> None:
    record(host, "g1", 3)
    record(host, "g2", 1)
    at = Host(("g1", "g2"), instance)
    assert [at.run(request) for request in at.requests()] == [
        (["lake/raw/frames/g1", "lake/raw/frames/g2"], ("2026-11-22-20:00",)),
        (["lake/raw/frames/g1"], ("2026-11-22-21:00", "2026-11-22-22:00")),
    ]
    store = FolderStore(FolderRoot(host / "lake"))
    for gatherer, hours in (("g1", 3), ("g2", 1)):
        for number in range(hours):
            manifest = read_frames_manifest(store, FramesPartition(gatherer, HOUR + timedelta(hours=number)))
            assert manifest is not None
            assert (manifest.state, manifest.frames) == ("closed", 1)
    (event,) = at.instance.fetch_materializations(frames("g2"), limit=10).records
    assert event.asset_materialization is not None
    metadata = {key: each.value for key, each in event.asset_materialization.metadata.items()}
    assert (metadata["dagster/partition_row_count"], metadata["state"], metadata["segments"]) == (1, "closed", 1)
    assert at.requests() == []


def test_hours_that_a_run_is_about_to_archive_are_left_out(host: Path, instance: dg.DagsterInstance) -> None:
    record(host, "g1", 3)
    busy = {"2026-11-22-21:00"}
    requested = Host(("g1",), instance).requests(busy)
    assert [request.partition_key for request in requested] == ["2026-11-22-20:00", "2026-11-22-22:00"]


@pytest.mark.parametrize("moment", [datetime(1970, 1, 1, tzinfo=UTC), datetime(2070, 1, 1, tzinfo=UTC)])
def test_hours_without_a_partition_are_archived_with_the_running_one(
    host: Path, instance: dg.DagsterInstance, moment: datetime
) -> None:
    record(host, "g1", 2, moment)
    at = Host(("g1",), instance)
    running = hour_key(hour_of(SYSTEM_CLOCK.now()))
    (request,) = at.requests()
    assert at.run(request)[1][0] >= running
    store = FolderStore(FolderRoot(host / "lake"))
    for number in range(2):
        manifest = read_frames_manifest(store, FramesPartition("g1", moment + timedelta(hours=number)))
        assert manifest is not None
        assert manifest.frames == 1
    assert at.requests() == []


def test_without_a_lake_the_schedule_says_what_is_missing(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(host, "g1", 1)
    monkeypatch.delenv("KALSHI_LAKE_ROOT")
    assert not config.archives_frames()
    job = make_archive_frames_job(("g1",))
    moment = HOUR + timedelta(hours=1, minutes=3)
    with dg.build_schedule_context(scheduled_execution_time=moment, resources=RESOURCES) as context:
        data = make_frames_schedule(("g1",), START, job).evaluate_tick(context)
    assert "KALSHI_LAKE_ROOT is missing" in str(data.skip_message)
