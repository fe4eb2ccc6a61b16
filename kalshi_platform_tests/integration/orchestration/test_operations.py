"""What people do in the UI: switching services, terminating runs, rotation, a dry run of retention."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import dagster as dg
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.monitoring.heartbeat import Heartbeat
from kalshi_platform.orchestration.sensors.services import make_gatherer_sensor
from kalshi_platform.storage.services import ServiceSwitch, read_switch, write_heartbeat
from kalshi_platform_tests.integration.orchestration.conftest import Platform


def execute(platform: Platform, job: str, run_config: dict[str, object] | None = None) -> dg.ExecuteInProcessResult:
    """Launch a job with this run config, or as it is."""
    return platform.defs.resolve_job_def(job).execute_in_process(
        instance=platform.instance, run_config=run_config, raise_on_error=False
    )


def switched(platform: Platform, **config: object) -> dg.ExecuteInProcessResult:
    return execute(platform, "switch_services", {"ops": {"switch": {"config": config}}})


def tick(platform: Platform) -> tuple[list[str | None], str]:
    """Let the sensor of the gatherers look once: whom it launches, and what it says."""
    context = dg.build_sensor_context(instance=platform.instance, definitions=platform.defs)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    context.log.addHandler(handler)
    result = make_gatherer_sensor(["g1", "g2"])(context)
    assert isinstance(result, dg.SensorResult)
    text = result.skip_reason.skip_message if isinstance(result.skip_reason, dg.SkipReason) else result.skip_reason
    return [request.partition_key for request in result.run_requests or ()], "\n".join([*lines, text or ""])


def start_run(platform: Platform, name: str) -> dg.DagsterRun:
    return platform.instance.create_run_for_job(
        platform.defs.resolve_job_def("gather"),
        tags={"kalshi/service": f"gatherer/{name}", "dagster/partition": name},
        status=dg.DagsterRunStatus.STARTED,
    )


def beat(platform: Platform, name: str, run_id: str | None) -> None:
    now = SYSTEM_CLOCK.now()
    write_heartbeat(
        platform.world.gatherers[name].database,
        Heartbeat(f"gatherer/{name}", now, now, "running", GathererStatus(), run_id=run_id),
    )


def page(platform: Platform, run: dg.DagsterRun) -> str:
    return "\n".join(entry.message for entry in platform.instance.all_logs(run.run_id))


def tags_of(platform: Platform, run: dg.DagsterRun) -> Mapping[str, str]:
    found = platform.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.tags


def test_services_switched_off_in_the_ui_are_off_with_the_reason(platform: Platform) -> None:
    assert switched(platform, services=["g2", "deduplicator"], enabled=False, reason="maintenance").success
    off = ServiceSwitch(enabled=False, reason="maintenance")
    assert read_switch(platform.world.gatherers["g2"].database, "gatherer/g2") == off
    assert read_switch(platform.world.production, "deduplicator") == off
    assert tick(platform)[0] == ["g1"]
    assert execute(platform, "switch_services").success, "as it is, it switches everything on"
    assert tick(platform)[0] == ["g1", "g2"]
    refused = switched(platform, services=["g1", "g9"], enabled=False)
    assert "no service is called 'g9': there are gatherer/g1, gatherer/g2, deduplicator" in str(refused.all_events)
    assert read_switch(platform.world.gatherers["g1"].database, "gatherer/g1").enabled, "none before all are known"


def test_a_run_terminated_by_hand_stays_off_only_if_it_was_switched_off_and_says_so(platform: Platform) -> None:
    run = start_run(platform, "g1")
    platform.instance.report_run_canceled(run)
    launched, said = tick(platform)
    assert launched == ["g1", "g2"]
    assert "gatherer/g1: launch: its run was terminated by hand, and its switch is on" in said
    assert "to keep it off: kalshi-platform switch g1 off" in said
    assert "gatherer/g1 is launched again, because its switch is on" in page(platform, run)

    assert switched(platform, services=["g1"], enabled=False).success
    another = start_run(platform, "g1")
    platform.instance.report_run_canceled(another)
    launched, said = tick(platform)
    assert launched == ["g2"]
    assert "gatherer/g1: wait: switched off; on again: kalshi-platform switch g1 on" in said
    assert "launched again" not in page(platform, another)


def test_a_run_that_the_supervisor_ends_says_why_and_was_not_terminated_by_hand(platform: Platform) -> None:
    run = start_run(platform, "g1")
    assert switched(platform, services=["g1"], enabled=False).success
    tick(platform)
    assert "The supervisor of gatherer/g1 ends this run: switched off." in page(platform, run)
    platform.instance.report_run_canceled(run)
    assert switched(platform, services=["g1"], enabled=True).success
    launched, said = tick(platform)
    assert launched == ["g1", "g2"]
    assert "by hand" not in said


def test_rotation_waits_for_the_successor_and_is_refused_where_no_other_gatherer_records(platform: Platform) -> None:
    run = start_run(platform, "g1")
    beat(platform, "g1", "its successor")
    alone = execute(platform, "rotate_gatherers", {"ops": {"rotate": {"config": {"gatherers": ["g1"]}}}})
    assert "no other gatherer records" in str(alone.all_events)
    assert "kalshi/rotate" not in tags_of(platform, run)

    beat(platform, "g2", "another")
    done = execute(platform, "rotate_gatherers")
    assert done.success, "g2 has no run to rotate, which is no error"
    assert tags_of(platform, run)["kalshi/rotate"] == done.run_id


def test_a_dry_run_of_retention_says_what_stays_and_drops_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.seed(0)
    monkeypatch.setenv("KALSHI_RETENTION_GATHERER_DAYS", "0.01")
    done = execute(platform, "retention_dry_run")
    assert done.success
    (output,) = [event for event in done.all_events if event.event_type is dg.DagsterEventType.STEP_OUTPUT]
    metadata = output.step_output_data.metadata
    assert metadata["partitions_dropped"].value == 0
    assert "| g1 | orderbook_deltas |" in str(metadata["stays"].value)
    with platform.world.gatherers["g1"].database.transaction() as transaction:
        assert transaction.fetch_all("SELECT FROM orderbook_deltas")
