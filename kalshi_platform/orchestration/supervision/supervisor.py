"""Keeps exactly one run of every endless service alive. Each tick: facts, decision (pure), deeds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.orchestration.services import Service
from kalshi_platform.orchestration.supervision.decision import Act, Facts, Heartbeat, Rules, Step, decide
from kalshi_platform.orchestration.supervision.runs import carry_out, ended_runs, live_runs
from kalshi_platform.orchestration.supervision.sightings import Sightings
from kalshi_platform.orchestration.supervision.witnesses import DEADLINE_S, Witnesses, newest_heartbeat

log = logging.getLogger(__name__)

SUPERVISOR_HEARTBEAT = "supervisor-heartbeat.json"


class Observer:
    """The eyes of one supervisor, which live as long as its process: connections, and what was seen when."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.witnesses = Witnesses()
        self.sightings = Sightings(clock)

    def close(self) -> None:
        """Let go of threads and connections."""
        self.witnesses.close()


@dataclass
class Memory:
    """What a tick leaves to the next one, in the sensor's cursor."""

    wanted: dict[str, bool] = field(default_factory=dict)
    checked_at: datetime | None = None

    @classmethod
    def load(cls, cursor: str | None) -> Memory:
        """Read a cursor; one that cannot be read counts as none."""
        try:
            content: dict[str, Any] = json.loads(cursor or "{}")
            return cls(
                wanted={str(name): bool(value) for name, value in content.get("wanted", {}).items()},
                checked_at=_moment(content.get("checked_at")),
            )
        except (ValueError, AttributeError, TypeError):
            return cls()

    def dump(self) -> str:
        return json.dumps({"wanted": self.wanted, "checked_at": _text(self.checked_at)})


@dataclass(frozen=True)
class Outcome:
    """What a tick found and wants launched."""

    requests: list[dg.RunRequest]
    words: list[str]
    heartbeats: dict[str, Heartbeat | None]


def supervise(
    instance: dg.DagsterInstance,
    services: Sequence[Service],
    memory: Memory,
    observer: Observer,
    *,
    deadline_s: float = DEADLINE_S,
    rules: Rules | None = None,
) -> Outcome:
    """Look after `services` once. Ends runs itself; the launches are returned as run requests (without a run key,
    which would forbid the second launch for ever)."""
    sightings = observer.sightings
    sightings.begin()
    testimonies = observer.witnesses.ask(services, deadline_s)
    live = {job: live_runs(instance, job, sightings) for job in {service.job_name for service in services}}
    ended = {job: ended_runs(instance, job, sightings, observer.clock.now()) for job in live}
    outcome = Outcome([], [], {})
    for service in services:
        testimony = testimonies[service.name]
        if testimony.reachable:
            memory.wanted[service.name] = testimony.running_wanted is not False
        heartbeat = newest_heartbeat(service, testimony, sightings, observer.clock)
        facts = Facts(
            wanted=memory.wanted.get(service.name, True),
            live=live[service.job_name].get(service.name, ()),
            ended=ended[service.job_name].get(service.name, ()),
            heartbeat=heartbeat,
            attentive_s=sightings.attentive_s,
            rules=rules or Rules(),
        )
        outcome.heartbeats[service.name] = heartbeat
        for step in decide(facts):
            _do(instance, service, step, outcome)
    return outcome


def _do(instance: dg.DagsterInstance, service: Service, step: Step, outcome: Outcome) -> None:
    outcome.words.append(f"{service.name}: {step.act.value}: {step.reason}")
    if step.act is Act.LAUNCH:
        outcome.requests.append(
            dg.RunRequest(job_name=service.job_name, partition_key=service.partition_key, tags=service.tags)
        )
    elif step.act is not Act.WAIT:
        log.warning("%s: %s run %s: %s", service.name, step.act.value, step.run_id, step.reason)
        carry_out(instance, step)


def write_supervisor_heartbeat(state_dir: Path, now: datetime) -> None:
    """Tell the watchdog outside Dagster that ticks happen. A full disk must not end supervision."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        part = state_dir / f".{SUPERVISOR_HEARTBEAT}.{os.getpid()}"
        part.write_text(json.dumps({"at": now.isoformat()}), encoding="utf-8")
        part.replace(state_dir / SUPERVISOR_HEARTBEAT)
    except OSError as error:
        log.warning("the supervisor's heartbeat could not be written: %s", error)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
