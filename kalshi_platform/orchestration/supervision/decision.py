"""What a supervisor does about one endless service. Pure: facts in, decision out.

A service is one Dagster run at most. Three witnesses can disagree: the runs (whose status may lie, in both directions),
the heartbeat (written by the service itself) and the off switch. The heartbeat tells whether somebody is really there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum


class RunState(Enum):
    """Dagster's run statuses, as far as a supervisor tells them apart."""

    WAITING = "waiting"  # NOT_STARTED, QUEUED, STARTING
    RUNNING = "running"  # STARTED, SUSPENDED, MANAGED
    CANCELING = "canceling"


@dataclass(frozen=True)
class LiveRun:
    """A run in progress; `since` is when it came into its state (or the earliest known moment of it)."""

    run_id: str
    state: RunState
    since: datetime


@dataclass(frozen=True)
class EndedRun:
    """A run that ended within the last hour."""

    run_id: str
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True)
class Heartbeat:
    """The newest sign of life, from the table or the file. `stopped`: the service said goodbye."""

    at: datetime
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
    """What is known about one service at `now`. `ended` is newest first."""

    now: datetime
    wanted: bool = True
    live: Sequence[LiveRun] = ()
    ended: Sequence[EndedRun] = ()
    heartbeat: Heartbeat | None = None
    attentive_since: datetime | None = None
    """Since when the supervisor has been looking without a break; None: for long."""
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
    rules, age_s = facts.rules, _seconds(facts.now - run.since)
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
        silent_s = _seconds(facts.now - beat.at)
        if silent_s <= rules.heartbeat_limit_s:
            return Step(Act.WAIT, f"running, heard of {silent_s:.0f} s ago")
        if facts.attentive_since is not None and _seconds(facts.now - facts.attentive_since) < rules.awake_grace_s:
            return Step(Act.WAIT, f"heard of {silent_s:.0f} s ago, and the supervisor was away meanwhile")
        return Step(Act.MARK_FAILED, f"no heartbeat for {silent_s:.0f} s", run.run_id)
    if beat is not None and _is_alive(beat, facts) and _seconds(beat.at - run.since) > rules.farewell_s:
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
        end = next((run.ended_at for run in facts.ended if run.run_id == beat.run_id), None)
        if end is not None and _seconds(beat.at - end) > rules.farewell_s:
            return Step(Act.WAIT, "the process of an ended run still works; its successor starts when it is silent")
    failures, last_end = _failures_at_start(facts)
    if failures >= 2 and last_end is not None:
        pause_s = min(rules.backoff_most_s, rules.backoff_first_s * 2.0 ** (failures - 2))
        left_s = pause_s - _seconds(facts.now - last_end)
        if left_s > 0:
            return Step(Act.WAIT, f"{failures} short runs in a row; next attempt in {left_s:.0f} s")
    return Step(Act.LAUNCH, "not running" if not failures else f"not running; {failures} short runs before")


def _is_alive(beat: Heartbeat, facts: Facts) -> bool:
    return not beat.stopped and _seconds(facts.now - beat.at) <= facts.rules.heartbeat_limit_s


def _failures_at_start(facts: Facts) -> tuple[int, datetime | None]:
    """How many of the newest runs ended within `healthy_after_s` of their start, and when the newest one ended.

    What ended before the supervisor looked does not count: stopping the whole platform ends young runs too.
    """
    count = 0
    for run in facts.ended:
        if facts.attentive_since is not None and run.ended_at < facts.attentive_since:
            break
        if _seconds(run.ended_at - run.started_at) >= facts.rules.healthy_after_s:
            break
        count += 1
    return count, (facts.ended[0].ended_at if count else None)


def _keeper(facts: Facts) -> LiveRun:
    """The run that stays when there are several: the one that is heard of, else the longest in the best state."""
    beat = facts.heartbeat
    rank = {RunState.RUNNING: 0, RunState.WAITING: 1, RunState.CANCELING: 2}
    return min(
        facts.live,
        key=lambda run: (beat is None or beat.run_id != run.run_id, rank[run.state], run.since, run.run_id),
    )


def _end(run: LiveRun, facts: Facts, reason: str) -> Step:
    if run.state is not RunState.CANCELING:
        return Step(Act.TERMINATE, reason, run.run_id)
    if _seconds(facts.now - run.since) > facts.rules.cancel_limit_s:
        return Step(Act.MARK_FAILED, f"{reason}, and did not end when asked to", run.run_id)
    return Step(Act.WAIT, f"{reason}; ending")


def _seconds(span: timedelta) -> float:
    return span.total_seconds()
