"""What a supervisor does about one endless service. Pure: facts in, decision out.

A service is one Dagster run at most. Three witnesses can disagree: the runs (whose status may lie, in both directions),
the heartbeat (written by the service itself) and the off switch. The heartbeat tells whether somebody is really there.
All times are ages in seconds, as the observer measured them (see sightings): clocks of two hosts are never compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class RunState(Enum):
    """Dagster's run statuses, as far as a supervisor tells them apart."""

    WAITING = "waiting"  # NOT_STARTED, QUEUED, STARTING
    RUNNING = "running"  # STARTED, SUSPENDED, MANAGED
    CANCELING = "canceling"


@dataclass(frozen=True)
class LiveRun:
    """A run in progress; `age_s`: how long it has been in its state; `number`: runs are numbered as they are made."""

    run_id: str
    state: RunState
    age_s: float
    number: int = 0


@dataclass(frozen=True)
class EndedRun:
    """A run that ended lately, `ended_s` ago, after having lived for `lived_s`."""

    run_id: str
    lived_s: float
    ended_s: float


@dataclass(frozen=True)
class Heartbeat:
    """The newest sign of life, from the table or the file. `stopped`: the service said goodbye."""

    age_s: float
    run_id: str | None
    stopped: bool = False
    state: str = ""
    """In the service's own word: running, waiting …"""


@dataclass(frozen=True)
class Rules:
    """Patience, in seconds."""

    heartbeat_limit_s: float = 45.0
    start_limit_s: float = 120.0
    """For a run to get from the queue into work, and for a working run to send its first heartbeat."""
    cancel_limit_s: float = 60.0
    farewell_s: float = 7.0
    """A heartbeat later than a run's end by more than this was sent by a process that outlived its run."""
    healthy_after_s: float = 60.0
    """A run that lived for so long did not fail at the start."""
    awake_grace_s: float = 12.0
    """After the supervisor itself was away (restart, sleeping machine), services get this long to be heard of."""
    backoff_first_s: float = 10.0
    backoff_most_s: float = 300.0


class Act(Enum):
    LAUNCH = "launch"
    TERMINATE = "terminate"
    MARK_FAILED = "mark failed"
    WAIT = "wait"


@dataclass(frozen=True)
class Step:
    """One thing to do, and why, in words for a person."""

    act: Act
    reason: str
    run_id: str | None = None


@dataclass(frozen=True)
class Facts:
    """What is known about one service. `ended` is newest first."""

    wanted: bool = True
    live: Sequence[LiveRun] = ()
    ended: Sequence[EndedRun] = ()
    heartbeat: Heartbeat | None = None
    attentive_s: float = math.inf
    """For how long the supervisor has been looking without a break."""
    rules: Rules = field(default_factory=Rules)


def decide(facts: Facts) -> list[Step]:
    """Return the steps of this tick; at most one of them is a launch, and only when no run is in progress."""
    if not facts.wanted:
        if not facts.live:
            return [Step(Act.WAIT, "switched off")]
        return [_end(run, facts, "switched off") for run in facts.live]
    if facts.live:
        keeper = _keeper(facts)
        surplus = [_end(run, facts, "another run serves this already") for run in facts.live if run is not keeper]
        return [*surplus, _watch(keeper, facts)]
    return [_absent(facts)]


def _watch(run: LiveRun, facts: Facts) -> Step:
    rules, age_s = facts.rules, run.age_s
    if run.state is RunState.CANCELING:
        if age_s > rules.cancel_limit_s:
            return Step(
                Act.MARK_FAILED, f"did not end within {rules.cancel_limit_s:.0f} s of being asked to", run.run_id
            )
        return Step(Act.WAIT, "ending")
    if run.state is RunState.WAITING:
        if age_s > rules.start_limit_s:
            return Step(Act.MARK_FAILED, f"did not start within {rules.start_limit_s:.0f} s", run.run_id)
        return Step(Act.WAIT, "starting")
    beat = facts.heartbeat
    if beat is not None and beat.run_id == run.run_id:
        silent_s = beat.age_s
        if silent_s <= rules.heartbeat_limit_s:
            return Step(Act.WAIT, f"running, heard of {silent_s:.0f} s ago")
        if facts.attentive_s < rules.awake_grace_s:
            return Step(Act.WAIT, f"heard of {silent_s:.0f} s ago, and the supervisor was away meanwhile")
        return Step(Act.MARK_FAILED, f"no heartbeat for {silent_s:.0f} s", run.run_id)
    if beat is not None and _is_alive(beat, facts) and run.age_s - beat.age_s > rules.farewell_s:
        if beat.run_id is None:
            return Step(Act.TERMINATE, "the service runs outside Dagster already", run.run_id)
        return Step(Act.WAIT, f"running, behind a process of run {beat.run_id[:8]} that still works")
    if age_s > rules.start_limit_s:
        return Step(Act.MARK_FAILED, f"no heartbeat within {rules.start_limit_s:.0f} s of its start", run.run_id)
    return Step(Act.WAIT, "running, no heartbeat yet")


def _absent(facts: Facts) -> Step:
    beat, rules = facts.heartbeat, facts.rules
    if beat is not None and _is_alive(beat, facts):
        if beat.run_id is None:
            return Step(Act.WAIT, "runs outside Dagster")
        ended_s = next((run.ended_s for run in facts.ended if run.run_id == beat.run_id), None)
        if ended_s is not None and ended_s - beat.age_s > rules.farewell_s:
            return Step(Act.WAIT, "the process of an ended run still works; its successor starts when it is silent")
    failures = _failures_at_start(facts)
    if failures >= 2:
        pause_s = min(rules.backoff_most_s, rules.backoff_first_s * 2.0 ** (failures - 2))
        left_s = pause_s - facts.ended[0].ended_s
        if left_s > 0:
            return Step(Act.WAIT, f"{failures} short runs in a row; next attempt in {left_s:.0f} s")
    return Step(Act.LAUNCH, "not running" if not failures else f"not running; {failures} short runs before")


def _is_alive(beat: Heartbeat, facts: Facts) -> bool:
    return not beat.stopped and beat.age_s <= facts.rules.heartbeat_limit_s


def _failures_at_start(facts: Facts) -> int:
    """How many of the newest runs ended within `healthy_after_s` of their start.

    What ended before the supervisor looked does not count: stopping the whole platform ends young runs too.
    """
    count = 0
    for run in facts.ended:
        if run.ended_s >= facts.attentive_s or run.lived_s >= facts.rules.healthy_after_s:
            break
        count += 1
    return count


def _keeper(facts: Facts) -> LiveRun:
    """The run that stays when there are several: the one that is heard of, else the oldest in the best state."""
    beat = facts.heartbeat
    rank = {RunState.RUNNING: 0, RunState.WAITING: 1, RunState.CANCELING: 2}
    return min(
        facts.live,
        key=lambda run: (beat is None or beat.run_id != run.run_id, rank[run.state], run.number, run.run_id),
    )


def _end(run: LiveRun, facts: Facts, reason: str) -> Step:
    if run.state is not RunState.CANCELING:
        return Step(Act.TERMINATE, reason, run.run_id)
    if run.age_s > facts.rules.cancel_limit_s:
        return Step(Act.MARK_FAILED, f"{reason}, and did not end when asked to", run.run_id)
    return Step(Act.WAIT, f"{reason}; ending")
