"""The supervisor with a real instance and real databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.live.status import DeduplicatorStatus
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.monitoring.heartbeat import Heartbeat, write_file
from kalshi_platform.orchestration.schedules.catalog import is_fresh
from kalshi_platform.orchestration.sensors.services import make_deduplicator_sensor, make_gatherer_sensor
from kalshi_platform.orchestration.services import load_gatherer_service
from kalshi_platform.orchestration.supervision.supervisor import SensorCursor, Supervisor, Tick
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import write_heartbeat
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.integration.orchestration.conftest import Platform

NAMES = ["g1", "g2"]


PATIENT_S = 20.0
"""A busy machine is not what these tests are about."""


def tick(platform: Platform, cursor: SensorCursor | None = None, supervisor: Supervisor | None = None) -> Tick:
    """Do one tick: with a supervisor of its own, unless one is given."""
    ticking = supervisor or Supervisor()
    try:
        services = [load_gatherer_service(name) for name in NAMES]
        return ticking.tick(platform.instance, services, cursor or SensorCursor(), PATIENT_S)
    finally:
        if supervisor is None:
            ticking.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(SYSTEM_CLOCK.now())


@pytest.fixture
def supervisor(clock: FakeClock) -> Iterator[Supervisor]:
    made = Supervisor(clock)
    yield made
    made.close()


def written_ago(platform: Platform, name: str, ago: timedelta) -> None:
    """Make the row older (or, with a negative time, one from the future)."""
    with platform.world.gatherers[name].database.transaction() as transaction:
        transaction.execute("UPDATE heartbeats SET at = clock_timestamp() - %s", (ago,))


def status_of(platform: Platform, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = platform.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def launched(ticked: Tick) -> list[str | None]:
    return [request.partition_key for request in ticked.requests]


def start_run(platform: Platform, name: str, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    return platform.instance.create_run_for_job(
        platform.defs.resolve_job_def("gather"),
        tags={"kalshi/service": f"gatherer/{name}", "dagster/partition": name},
        status=status,
    )


def beat(name: str, at: datetime | None = None, run_id: str | None = None) -> Heartbeat[GathererStatus]:
    now = SYSTEM_CLOCK.now()
    return Heartbeat(
        service=f"gatherer/{name}",
        at=at or now,
        started_at=now,
        state="running",
        details=GathererStatus(),
        run_id=run_id,
    )


def test_gatherers_that_do_not_run_are_launched_with_their_tags(platform: Platform) -> None:
    ticked = tick(platform)
    assert launched(ticked) == NAMES
    assert ticked.requests[0].tags["kalshi/service"] == "gatherer/g1"
    assert ticked.requests[0].tags["dagster/max_retries"] == "0"
    assert all(request.run_key is None for request in ticked.requests), "a run key would forbid every relaunch"


def test_a_run_in_progress_and_a_service_outside_dagster_give_no_launch(platform: Platform) -> None:
    start_run(platform, "g1", dg.DagsterRunStatus.STARTING)
    write_heartbeat(platform.world.gatherers["g2"].database, beat("g2"))
    assert launched(tick(platform)) == []


def test_a_fresh_heartbeat_file_gives_no_launch(platform: Platform) -> None:
    write_file(load_gatherer_service("g1").heartbeat_file or platform.lake, beat("g1"))
    assert launched(tick(platform)) == ["g2"]


def test_a_gatherer_whose_lock_is_held_is_launched_once_it_is_free(platform: Platform) -> None:
    with platform.world.gatherers["g1"].database.advisory_lock("gatherer", "g1") as lock:
        assert lock is not None
        assert launched(tick(platform)) == ["g2"]
    assert launched(tick(platform)) == NAMES


def test_the_live_merge_whose_lock_is_held_is_not_launched(platform: Platform) -> None:
    sensor = make_deduplicator_sensor()
    with platform.world.production.advisory_lock("deduplicator") as lock:
        assert lock is not None
        result = sensor(dg.build_sensor_context(instance=platform.instance, definitions=platform.defs))
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests
    assert "holds its lock" in str(result.skip_reason)


def test_a_worker_that_outlived_its_run_is_replaced_when_it_gives_the_lock_back(platform: Platform) -> None:
    run = start_run(platform, "g1", dg.DagsterRunStatus.STARTED)
    platform.instance.report_run_failed(run, "its code server died")
    database = platform.world.gatherers["g1"].database
    write_heartbeat(database, beat("g1", run_id=run.run_id))
    with database.advisory_lock("gatherer", "g1"):
        assert launched(tick(platform)) == ["g2"]
    assert launched(tick(platform)) == NAMES


def test_a_silent_run_is_failed_and_replaced(platform: Platform, clock: FakeClock, supervisor: Supervisor) -> None:
    run = start_run(platform, "g1", dg.DagsterRunStatus.STARTED)
    write_heartbeat(platform.world.gatherers["g1"].database, beat("g1", run_id=run.run_id))
    written_ago(platform, "g1", timedelta(minutes=2))
    assert launched(tick(platform, supervisor=supervisor)) == ["g2"]
    assert status_of(platform, run) is dg.DagsterRunStatus.STARTED, "it had just begun to look"
    clock.step(13)
    assert launched(tick(platform, supervisor=supervisor)) == ["g2"]
    assert status_of(platform, run) is dg.DagsterRunStatus.FAILURE
    assert launched(tick(platform, supervisor=supervisor)) == ["g1", "g2"]


def test_a_lock_held_without_a_heartbeat_is_logged_once_with_its_remedy(
    platform: Platform, clock: FakeClock, supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    def warned() -> list[str]:
        return [line for line in caplog.messages if line.startswith("lock_holder_silent service=gatherer/g1")]

    with platform.world.gatherers["g1"].database.advisory_lock("gatherer", "g1"):
        tick(platform, supervisor=supervisor)
        for _ in range(5):  # as often as a supervisor that is not away ticks
            clock.step(10)
            assert not warned(), "it may be about to write its first heartbeat"
            tick(platform, supervisor=supervisor)
        clock.step(10)
        assert "g1: warn: a process has held its lock" in str(tick(platform, supervisor=supervisor).messages)
        assert len(warned()) == 1
        assert "pg_terminate_backend" in warned()[0]
    assert launched(tick(platform, supervisor=supervisor)) == NAMES


@pytest.mark.parametrize("off_s", [-50, 50, -7_200, 7_200])
def test_a_healthy_run_on_a_host_whose_clock_is_off_is_left_alone(
    platform: Platform, clock: FakeClock, supervisor: Supervisor, off_s: int
) -> None:
    run = start_run(platform, "g1", dg.DagsterRunStatus.STARTED)
    for _ in range(12):
        at = SYSTEM_CLOCK.now() + timedelta(seconds=off_s)
        write_heartbeat(platform.world.gatherers["g1"].database, beat("g1", at, run.run_id))
        assert launched(tick(platform, supervisor=supervisor)) == ["g2"]
        clock.step(5)
    assert status_of(platform, run) is dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize("where", ["row", "file"])
def test_a_gatherer_that_died_while_its_clock_was_ahead_is_replaced_at_once(
    platform: Platform, supervisor: Supervisor, where: str
) -> None:
    ahead = beat("g1", SYSTEM_CLOCK.now() + timedelta(hours=2))
    if where == "row":
        write_heartbeat(platform.world.gatherers["g1"].database, ahead)
        written_ago(platform, "g1", timedelta(hours=-2))
    else:
        write_file(load_gatherer_service("g1").heartbeat_file or platform.lake, ahead)
    assert launched(tick(platform, supervisor=supervisor)) == NAMES


def test_a_gatherer_that_dies_is_missed_although_its_clock_was_set_meanwhile(
    platform: Platform, clock: FakeClock, supervisor: Supervisor
) -> None:
    write_heartbeat(platform.world.gatherers["g1"].database, beat("g1"))
    assert launched(tick(platform, supervisor=supervisor)) == ["g2"]
    written_ago(platform, "g1", timedelta(hours=-2))
    assert launched(tick(platform, supervisor=supervisor)) == ["g2"], "a heartbeat that changed is a sign of life"
    clock.step(20)
    assert launched(tick(platform, supervisor=supervisor)) == ["g2"]
    clock.step(26)
    assert launched(tick(platform, supervisor=supervisor)) == NAMES


def test_a_switch_that_is_off_holds_also_while_the_database_is_away(platform: Platform) -> None:
    with platform.world.gatherers["g1"].database.transaction() as transaction:
        transaction.execute("INSERT INTO service_switches (service, enabled) VALUES ('gatherer/g1', false)")
    cursor = SensorCursor()
    assert launched(tick(platform, cursor)) == ["g2"]
    cursor = SensorCursor.load(cursor.dump())
    with platform.world.gatherers["g1"].database.transaction() as transaction:
        transaction.execute("ALTER TABLE service_switches RENAME TO away")
    assert launched(tick(platform, cursor)) == ["g2"]


def test_the_sensor_writes_its_heartbeat_and_checks_freshness(platform: Platform) -> None:
    for name in NAMES:
        write_file(load_gatherer_service(name).heartbeat_file or platform.lake, beat(name))
    context = dg.build_sensor_context(instance=platform.instance, definitions=platform.defs)
    result = make_gatherer_sensor(NAMES)(context)
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests
    (evaluation,) = result.asset_events
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    assert evaluation.passed
    at = datetime.fromisoformat(json.loads((platform.state_dir / "supervisor-heartbeat.json").read_text())["at"])
    assert SYSTEM_CLOCK.now() - at < timedelta(minutes=1)


def test_the_live_merge_is_launched_by_the_same_rules(platform: Platform) -> None:
    sensor = make_deduplicator_sensor()
    context = dg.build_sensor_context(instance=platform.instance, definitions=platform.defs)
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert [request.job_name for request in result.run_requests or ()] == ["dedup_live"]
    now = SYSTEM_CLOCK.now()
    write_heartbeat(
        platform.world.production,
        Heartbeat("deduplicator", now, now, "running", DeduplicatorStatus(error="closed by the server: \x00")),
    )
    again = sensor(dg.build_sensor_context(instance=platform.instance, definitions=platform.defs))
    assert isinstance(again, dg.SensorResult)
    assert not again.run_requests


@pytest.mark.parametrize(("ago", "fresh"), [(9, True), (11, False), (-9, True), (-120, False)])
def test_a_catalog_synced_by_a_host_whose_clock_is_hours_ahead_is_not_fresh_for_hours(
    platform: Platform, ago: int, fresh: bool
) -> None:
    now = SYSTEM_CLOCK.now()
    database = Database(platform.world.catalog_urls["g1"], name="g1 catalog", pool_size=1)
    try:
        with database.transaction() as transaction:
            transaction.execute(
                "INSERT INTO catalog_syncs (what, scope, started_at, finished_at) VALUES ('markets', 'full', %s, %s)",
                (now - timedelta(minutes=ago, seconds=5), now - timedelta(minutes=ago)),
            )
        assert is_fresh(database, now) is fresh
    finally:
        database.dispose()
