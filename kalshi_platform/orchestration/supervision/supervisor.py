"""Keeps exactly one run of every long-running service alive. Each tick: read the state, decide (policy), act."""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dagster as dg

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.orchestration.services import ENDED_BY_TAG, SERVICE_TAG, Service
from kalshi_platform.orchestration.statuses import ENDED, UNFINISHED
from kalshi_platform.orchestration.supervision.age_tracker import AgeTracker
from kalshi_platform.orchestration.supervision.liveness import DEADLINE_S, LivenessProbe, ProbeResult, latest_heartbeat
from kalshi_platform.orchestration.supervision.policy import (
    Action,
    ActionKind,
    EndedRun,
    LatestHeartbeat,
    LiveRun,
    Policy,
    RunState,
    ServiceState,
    decide,
)

_log = event_logger(__name__)

SUPERVISOR_HEARTBEAT = "supervisor-heartbeat.json"

_Status = dg.DagsterRunStatus
RUN_STATES = {
    _Status.NOT_STARTED: RunState.WAITING,
    _Status.QUEUED: RunState.WAITING,
    _Status.STARTING: RunState.WAITING,
    _Status.STARTED: RunState.RUNNING,
    _Status.SUSPENDED: RunState.RUNNING,
    _Status.MANAGED: RunState.RUNNING,
    _Status.CANCELING: RunState.CANCELING,
}
# A day, so that a clock that is hours off hides none of the runs that ended lately.
_RECENT = timedelta(days=1)


@dataclass
class SensorCursor:
    """What a tick leaves to the next one: each service's switch as last read, and the time of the last check."""

    enabled: dict[str, bool] = field(default_factory=dict)
    checked_at: datetime | None = None

    @classmethod
    def load(cls, cursor: str | None) -> SensorCursor:
        """Read a cursor; one that cannot be read counts as none."""
        try:
            content: dict[str, Any] = json.loads(cursor or "{}")
            at = content.get("checked_at")
            return cls(
                # `wanted` is what earlier versions called it.
                {str(name): bool(on) for name, on in content.get("enabled", content.get("wanted", {})).items()},
                None if at is None else datetime.fromisoformat(at),
            )
        except (ValueError, AttributeError, TypeError):
            return cls()

    def dump(self) -> str:
        """Write the cursor as JSON."""
        at = None if self.checked_at is None else self.checked_at.isoformat()
        return json.dumps({"enabled": self.enabled, "checked_at": at})


@dataclass(frozen=True)
class Tick:
    """What a tick found, and the runs to launch. Their requests have no run key, which would forbid a second launch."""

    requests: list[dg.RunRequest]
    messages: list[str]
    heartbeats: dict[str, LatestHeartbeat | None]


class Supervisor:
    """Supervises services for as long as its process lives: it keeps connections, and when it saw what."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._probe = LivenessProbe()
        self._ages = AgeTracker(clock)
        self._warned_of: set[str] = set()
        """Services whose lock a silent process holds; each is logged once, not with every tick."""
        self._explained: set[str] = set()
        """Runs terminated by hand whose pages say what became of them."""

    def close(self) -> None:
        """Let go of threads and connections."""
        self._probe.close()

    def tick(
        self,
        instance: dg.DagsterInstance,
        services: Sequence[Service],
        cursor: SensorCursor,
        deadline_s: float = DEADLINE_S,
    ) -> Tick:
        """Supervise `services` once. Runs are ended here; launches are returned as run requests."""
        self._ages.start_round()
        probed = self._probe.probe(services, deadline_s)
        jobs = {service.job_name for service in services}
        live = {job: self._list_live_runs(instance, job) for job in jobs}
        ended = {job: self._list_ended_runs(instance, job) for job in jobs}
        policy, tick = policy_of(instance), Tick([], [], {})
        for service in services:
            result = probed[service.name]
            if result.lock_held is not None:  # the database answered
                cursor.enabled[service.name] = result.enabled is not False
            heartbeat = latest_heartbeat(service, result, self._ages, self._clock)
            tick.heartbeats[service.name] = heartbeat
            state = ServiceState(
                enabled=cursor.enabled.get(service.name, True),
                lock_held=result.lock_held,
                lock_held_s=self._lock_held_s(service, result),
                live=live[service.job_name].get(service.name, ()),
                ended=ended[service.job_name].get(service.name, ()),
                heartbeat=heartbeat,
                supervising_s=self._ages.supervising_s,
            )
            actions = decide(state, policy)
            self._warn_of_silent_holder(service, actions)
            for action in actions:
                tick.messages.append(_describe(service, state, action))
                if action.kind is ActionKind.LAUNCH:
                    self._explain_relaunch(instance, service, action)
                    tick.requests.append(
                        dg.RunRequest(job_name=service.job_name, partition_key=service.partition_key, tags=service.tags)
                    )
                elif action.kind in (ActionKind.TERMINATE, ActionKind.MARK_FAILED):
                    _end_run(instance, service, action)
        return tick

    def _lock_held_s(self, service: Service, probed: ProbeResult) -> float:
        """Return for how long the lock has been seen to be held; 0 when it is not, or was not read."""
        held_s = self._ages.age_s(f"lock {service.name}", str(probed.lock_held))
        return (held_s or 0.0) if probed.lock_held else 0.0

    def _explain_relaunch(self, instance: dg.DagsterInstance, service: Service, action: Action) -> None:
        """Write once on the page of a run terminated by hand that it is launched again, and what keeps it off."""
        if action.run_id is None or action.run_id in self._explained:
            return
        self._explained.add(action.run_id)
        _log.info("relaunched_after_termination", service=service.name, run_id=action.run_id, remedy=_keep_off(service))
        _write_on_page(
            instance,
            action.run_id,
            f"This run was terminated by hand. {service.name} is launched again, because its switch is on. "
            f"To keep it off: {_keep_off(service)}.",
        )

    def _warn_of_silent_holder(self, service: Service, actions: Sequence[Action]) -> None:
        reason = next((action.reason for action in actions if action.kind is ActionKind.WARN), None)
        if reason is None:
            self._warned_of.discard(service.name)
        elif service.name not in self._warned_of:
            self._warned_of.add(service.name)
            _log.warning(
                "lock_holder_silent", service=service.name, reason=reason, consequence="no run is launched meanwhile",
                remedy="see whether its process hangs, and end it or its session (pg_locks, pg_terminate_backend)",
            )  # fmt: skip

    def _list_live_runs(self, instance: dg.DagsterInstance, job_name: str) -> dict[str, list[LiveRun]]:
        """List the runs in progress, by service. They age from when they were first seen in their state."""
        found: dict[str, list[LiveRun]] = defaultdict(list)
        for record in instance.get_run_records(dg.RunsFilter(job_name=job_name, statuses=list(UNFINISHED))):
            run = record.dagster_run
            state = RUN_STATES[run.status]
            age_s = self._ages.age_s(run.run_id, state.value, is_listed=True) or 0.0
            found[run.tags.get(SERVICE_TAG, "")].append(LiveRun(run.run_id, state, age_s, record.storage_id))
        return found

    def _list_ended_runs(self, instance: dg.DagsterInstance, job_name: str) -> dict[str, list[EndedRun]]:
        """List the runs that ended lately, newest first, by service.

        The hosts that record starts and ends have clocks of their own: what was seen counts, and else what is recorded.
        """
        now = self._clock.now()
        found: dict[str, list[EndedRun]] = defaultdict(list)
        recent = dg.RunsFilter(job_name=job_name, statuses=list(ENDED), updated_after=now - _RECENT)
        for record in instance.get_run_records(recent, limit=60):
            run = record.dagster_run
            started = _from_epoch(record.start_time) or _as_utc(record.create_timestamp)
            ended = _from_epoch(record.end_time) or _as_utc(record.update_timestamp)
            dated_s = max(0.0, (now - ended).total_seconds())
            ended_s = self._ages.age_s(run.run_id, "ended", dated_s, is_listed=True) or 0.0
            lived_s = self._ages.lifetime_s(run.run_id)
            if lived_s is None:
                lived_s = max(0.0, (ended - started).total_seconds())
            by_hand = run.status is _Status.CANCELED and ENDED_BY_TAG not in run.tags
            found[run.tags.get(SERVICE_TAG, "")].append(EndedRun(run.run_id, lived_s, ended_s, by_hand))
        for runs in found.values():
            runs.sort(key=lambda run: run.ended_s)
        return found


def policy_of(instance: dg.DagsterInstance) -> Policy:
    """Return how long services are waited for: a run gets the start timeout of the instance's run monitoring.

    A process starts within seconds, a container on ECS or Kubernetes within minutes; `dagster.yaml` knows which it is.
    """
    if not instance.run_monitoring_enabled:
        return Policy()
    return Policy(start_limit_s=float(instance.run_monitoring_start_timeout_seconds))


def write_supervisor_heartbeat(state_dir: Path, now: datetime) -> None:
    """Write the file from which the watchdog outside Dagster sees that ticks happen. A full disk ends nothing."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        # Sensors of one code server tick in threads.
        part = state_dir / f".{SUPERVISOR_HEARTBEAT}.{os.getpid()}.{threading.get_ident()}"
        part.write_text(json.dumps({"at": now.isoformat()}), encoding="utf-8")
        part.replace(state_dir / SUPERVISOR_HEARTBEAT)
    except OSError as error:
        _log.warning("supervisor_heartbeat_not_written", path=state_dir / SUPERVISOR_HEARTBEAT, error=error)


def _end_run(instance: dg.DagsterInstance, service: Service, action: Action) -> None:
    """Terminate a run, or mark it failed (after trying to end its process, should there be one)."""
    run_id = str(action.run_id)
    _log.warning(
        "run_ended_by_supervisor", service=service.name, run_id=run_id, how=action.kind.value, why=action.reason
    )
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return
    _write_on_page(
        instance,
        run_id,
        f"The supervisor of {service.name} ends this run: {action.reason}.",
        tags={ENDED_BY_TAG: "supervisor"},
    )
    try:
        instance.run_coordinator.cancel_run(run_id)
    except Exception:  # noqa: BLE001 - whatever it is, the run is marked all the same
        # The code server that owned the process is gone, or never had it; the lock keeps a survivor from writing.
        _log.info("run_not_cancelled", service=service.name, run_id=run_id, exc_info=True)
    if action.kind is ActionKind.MARK_FAILED:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, f"ended by the supervisor: {action.reason}")


def _describe(service: Service, state: ServiceState, action: Action) -> str:
    """Describe an action in a line of the tick, with what a person can do about it."""
    text = f"{service.name}: {action.kind.value}: {action.reason}"
    if action.kind is ActionKind.LAUNCH and action.run_id is not None:
        return f"{text}; to keep it off: {_keep_off(service)}"
    if not state.enabled and action.kind is ActionKind.WAIT:
        return f"{text}; on again: kalshi-platform switch {_short(service)} on, or the job switch_services"
    return text


def _keep_off(service: Service) -> str:
    return f"kalshi-platform switch {_short(service)} off, or the job switch_services with enabled: false"


def _short(service: Service) -> str:
    """Return what `kalshi-platform switch` calls the service."""
    return service.partition_key or service.name


def _write_on_page(
    instance: dg.DagsterInstance, run_id: str, text: str, *, tags: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write a line into the log of a run, which has ended or is about to, and give the run these tags."""
    try:
        if tags:
            instance.add_run_tags(run_id, tags)
        run = instance.get_run_by_id(run_id)
        if run is not None:
            instance.report_engine_event(text, run)
    except Exception:  # noqa: BLE001 - a line on a page is worth no tick
        _log.info("run_page_not_written", run_id=run_id, exc_info=True)


def _from_epoch(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _as_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
