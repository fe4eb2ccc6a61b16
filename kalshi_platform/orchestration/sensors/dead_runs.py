"""The sensor that ends runs whose process is gone, and with it the code server that would have noticed.

A code server reports the death of a run's process. When both died (a machine that lost power, a container that was
killed) the run stays in progress for ever: it holds a slot of its kind, two of which stop all batches, and keeps its
partitions from being requested again. Dagster's own monitoring has no look at processes of the default launcher; the
other launchers (ECS, Kubernetes) have one of their own. Services are not looked at here: they have heartbeats.
"""

from __future__ import annotations

import re

import dagster as dg
import psutil

from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.orchestration.services import SERVICE_TAG

_log = event_logger(__name__)
_PID = re.compile(r"\(pid: (\d+)\)")
STARTED_WITHIN_S = 120.0
"""A run's process is started, and the event that names it is written, within this time of each other."""


def make_dead_runs_sensor() -> dg.SensorDefinition:
    """Make the sensor. It looks at runs that this code location's server has started, on its own host."""

    @dg.sensor(
        name="dead_runs_sensor",
        minimum_interval_seconds=20,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Marks batches failed whose process is gone although they are in progress, as after a power cut; Dagster "
            "then runs them again (run_retries)."
        ),
    )
    def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        if not isinstance(context.instance.run_launcher, dg.DefaultRunLauncher):
            return dg.SkipReason("the run launcher looks after the processes of its runs itself")
        origin = context.code_location_origin
        location = None if origin is None else origin.location_name
        ended = end_dead_runs(context.instance, location)
        return dg.SkipReason(f"{len(ended)} runs had lost their process")

    return dead_runs


def end_dead_runs(instance: dg.DagsterInstance, location: str | None) -> list[str]:
    """Mark runs of a code location failed that are in progress and have no process any more; return their ids.

    A container that starts anew gives low numbers again: a process belongs to the run that named its number last.
    """
    ended = []
    found: list[tuple[dg.DagsterRun, tuple[int, float]]] = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        run = record.dagster_run
        origin = run.remote_job_origin
        if origin is None or origin.location_name != location:
            continue
        named = _find_process(instance, run.run_id)
        if named is not None:
            found.append((run, named))
    named_last_at: dict[int, float] = {}
    for _, (pid, named_at) in found:
        named_last_at[pid] = max(named_at, named_last_at.get(pid, named_at))
    for run, named in found:
        if SERVICE_TAG in run.tags or (named_last_at[named[0]] <= named[1] and is_its_process(*named)):
            continue
        again = instance.get_run_by_id(run.run_id)
        if again is None or again.is_finished:
            continue
        _log.warning("run_without_process", run_id=run.run_id, job=run.job_name, pid=named[0])
        instance.report_run_failed(again, f"its process {named[0]} is gone, and so is the server that had started it")
        ended.append(run.run_id)
    return ended


def is_its_process(pid: int, named_at: float) -> bool:
    """Whether a process of this number runs that can be the one of which an event spoke; times in s since 1970."""
    try:
        process = psutil.Process(pid)
        # A child of this server is known to be it, whatever was done to the machine's clock.
        is_ours = process.ppid() == psutil.Process().pid
        is_of_then = abs(process.create_time() - named_at) < STARTED_WITHIN_S
        return process.status() != psutil.STATUS_ZOMBIE and (is_ours or is_of_then)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _find_process(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """Return the process that the launch of a run named, and when; None where no event does."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        if entry.dagster_event is not None and (found := _PID.search(entry.dagster_event.message or "")):
            return int(found.group(1)), entry.timestamp
    return None
