"""The job that gives gatherers fresh runs now, one after the other, so that one always records."""

import threading
from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from kalshi_platform import config as settings
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.jobs.descriptions import with_example
from kalshi_platform.orchestration.jobs.rotation import RUNNING, another_gatherer_is_recording
from kalshi_platform.orchestration.services import (
    GATHER_JOB,
    ROTATE_TAG,
    SERVICE_TAG,
    Service,
    load_gatherer_service,
)
from kalshi_platform.orchestration.supervision.liveness import latest_heartbeats

_LOOK_EVERY_S = 2.0
_PROBE_S = 6.0


class RotateConfig(dg.Config):
    """Which gatherers get a fresh run."""

    gatherers: list[str] = Field(description="Names of gatherers, in the order in which they are rotated.")
    patience_s: float = Field(
        default=300.0, gt=0, description="How long to wait for each successor to record, in seconds."
    )


@dg.op(
    name="rotate",
    description="Ends the run of each gatherer for its successor, and waits until that records before the next one.",
)
def rotate(context: dg.OpExecutionContext, config: RotateConfig) -> None:
    """Rotate the gatherers; one without a run in progress is left out, and one that alone records is an error."""
    with as_failure():
        names = settings.gatherer_names()
        services = [load_gatherer_service(name) for name in config.gatherers]
        for service in services:
            _rotate(context, service, names, config.patience_s)


def make_rotate_gatherers_job(names: Sequence[str]) -> dg.JobDefinition:
    """Make the job; launched as it is, it rotates all of `names`."""

    @dg.job(
        name="rotate_gatherers",
        executor_def=dg.in_process_executor,
        config=dg.RunConfig(ops={"rotate": RotateConfig(gatherers=list(names))}),
        tags={"kalshi/kind": "operation"},
        description=with_example(
            "Gives gatherers fresh runs now, one after the other: after a new version was deployed, or to free "
            "memory. A run ends as a success when another gatherer records, and gatherer_sensor launches the next. "
            "It is the platform's job, whose code location knows the databases of all gatherers. "
            "Runs rotate by themselves once a day. Launched as it is, the job rotates all gatherers.",
            """
            ops:
              rotate:
                config:
                  gatherers: [g1]
                  patience_s: 300
            """,
        ),
    )
    def rotate_gatherers() -> None:
        rotate()

    return rotate_gatherers


def _rotate(context: dg.OpExecutionContext, service: Service, names: Sequence[str], patience_s: float) -> None:
    run = _find_run(context.instance, service.name)
    if run is None:
        context.log.warning("nothing_to_rotate service=%s: no run of it is in progress", service.name)
        return
    if not another_gatherer_is_recording(str(service.partition_key), names):
        raise dg.Failure(
            description=f"{service.name} is not rotated: no other gatherer records, and the pause would be a hole. "
            "Switch another one on, or wait until it records.",
            allow_retries=False,
        )
    context.instance.add_run_tags(run.run_id, {ROTATE_TAG: context.run_id})
    context.log.info("rotation_requested service=%s run=%s", service.name, run.run_id)
    deadline = SYSTEM_CLOCK.monotonic() + patience_s
    never = threading.Event()
    while not _has_successor(service, run.run_id):
        if SYSTEM_CLOCK.monotonic() >= deadline:
            raise dg.Failure(
                description=f"{service.name}: no successor of run {run.run_id} records after {patience_s:.0f} s. "
                "See the last ticks of gatherer_sensor, and whether its switch is on.",
                allow_retries=False,
            )
        SYSTEM_CLOCK.wait(never, _LOOK_EVERY_S)
    context.log.info("rotated service=%s", service.name)


def _find_run(instance: dg.DagsterInstance, service: str) -> dg.DagsterRun | None:
    started = dg.RunsFilter(job_name=GATHER_JOB, statuses=[dg.DagsterRunStatus.STARTED], tags={SERVICE_TAG: service})
    records = instance.get_run_records(started, limit=1)
    return records[0].dagster_run if records else None


def _has_successor(service: Service, run_id: str) -> bool:
    beat = latest_heartbeats([service], _PROBE_S, SYSTEM_CLOCK)[service.name]
    return beat is not None and beat.run_id not in (None, run_id) and beat.state == RUNNING
