"""Runs of the endless services as Dagster knows them, and what can be done to them."""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import dagster as dg

from kalshi_platform.orchestration.services import SERVICE_TAG
from kalshi_platform.orchestration.statuses import ENDED, UNFINISHED
from kalshi_platform.orchestration.supervision.decision import Act, EndedRun, LiveRun, RunState, Step
from kalshi_platform.orchestration.supervision.sightings import Sightings

log = logging.getLogger(__name__)

_Status = dg.DagsterRunStatus
_STATES = {
    _Status.NOT_STARTED: RunState.WAITING,
    _Status.QUEUED: RunState.WAITING,
    _Status.STARTING: RunState.WAITING,
    _Status.STARTED: RunState.RUNNING,
    _Status.SUSPENDED: RunState.RUNNING,
    _Status.MANAGED: RunState.RUNNING,
    _Status.CANCELING: RunState.CANCELING,
}


def live_runs(instance: dg.DagsterInstance, job_name: str, sightings: Sightings) -> dict[str, list[LiveRun]]:
    """Runs in progress by service. They age from when they were first seen in their state."""
    found: dict[str, list[LiveRun]] = defaultdict(list)
    for record in instance.get_run_records(dg.RunsFilter(job_name=job_name, statuses=list(UNFINISHED))):
        run = record.dagster_run
        state = _STATES[run.status]
        age_s = sightings.age_s(run.run_id, state.value, is_listed=True) or 0.0
        found[run.tags.get(SERVICE_TAG, "")].append(LiveRun(run.run_id, state, age_s, record.storage_id))
    return found


def ended_runs(
    instance: dg.DagsterInstance, job_name: str, sightings: Sightings, now: datetime
) -> dict[str, list[EndedRun]]:
    """Runs that ended lately, newest first, by service.

    The hosts that record starts and ends have clocks of their own: what was seen counts, and else what is recorded.
    """
    found: dict[str, list[EndedRun]] = defaultdict(list)
    # A day, so that a clock that is hours off hides none of them.
    recent = dg.RunsFilter(job_name=job_name, statuses=list(ENDED), updated_after=now - timedelta(days=1))
    for record in instance.get_run_records(recent, limit=60):
        run = record.dagster_run
        started = _moment(record.start_time) or _utc(record.create_timestamp)
        ended = _moment(record.end_time) or _utc(record.update_timestamp)
        ended_s = sightings.age_s(run.run_id, "ended", max(0.0, (now - ended).total_seconds()), is_listed=True) or 0.0
        lived_s = sightings.lived_s(run.run_id)
        if lived_s is None:
            lived_s = max(0.0, (ended - started).total_seconds())
        found[run.tags.get(SERVICE_TAG, "")].append(EndedRun(run.run_id, lived_s, ended_s))
    for runs in found.values():
        runs.sort(key=lambda run: run.ended_s)
    return found


def carry_out(instance: dg.DagsterInstance, step: Step) -> None:
    """Terminate a run, or mark it failed (after trying to end its process, should there be one)."""
    if step.run_id is None:
        return
    run = instance.get_run_by_id(step.run_id)
    if run is None or run.is_finished:
        return
    try:
        instance.run_coordinator.cancel_run(step.run_id)
    except Exception:
        # The code server that owned the process is gone, or never had it; the lease keeps a survivor from writing.
        log.info("run %s could not be asked to end", step.run_id, exc_info=True)
    if step.act is Act.MARK_FAILED:
        run = instance.get_run_by_id(step.run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, f"ended by the supervisor: {step.reason}")


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
