"""Decides what a supervisor does about one long-running service. Pure: state in, actions out.

The rule: the switch is on and nobody holds the lock: launch. The rest says who holds it. While a run is in progress
that is the run, for as long as its heartbeat is fresh; without one it is the process that has the service's advisory
lock in its database, and, where that is away, the process that writes a fresh heartbeat. A run's status alone proves
nothing: a run may have ended while its process still works, or be in progress while its process is gone.
All times are ages in seconds by the supervisor's own clock (age_tracker): clocks of two hosts are never compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from kalshi_platform.backoff import exponential
from kalshi_platform.market.parts import WHOLE, MarketPart


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
    """A run that ended lately, `ended_s` ago, after having lived for `lived_s`; `by_hand`: a person terminated it."""

    run_id: str
    lived_s: float
    ended_s: float
    by_hand: bool = False


@dataclass(frozen=True)
class LatestHeartbeat:
    """The latest heartbeat, from the table or the file. `stopped`: the service said that it has stopped.

    `run_id` is None for a service that runs outside Dagster; `state` is the service's own word: running, waiting …;
    `market_shard`: the part of the markets that a gatherer records.
    """

    age_s: float
    run_id: str | None
    stopped: bool = False
    state: str = ""
    market_shard: MarketPart = WHOLE


@dataclass(frozen=True)
class Policy:
    """How long a supervisor waits for what, in seconds."""

    heartbeat_limit_s: float = 45.0
    """Nine heartbeats: a service writes one every 5 s."""
    start_limit_s: float = 120.0
    """For a run to get from the queue into work, and for a working run to send its first heartbeat.

    Where Dagster monitors runs, its `start_timeout_seconds` counts instead.
    """
    cancel_limit_s: float = 60.0
    final_heartbeat_grace_s: float = 7.0
    """A heartbeat later than a run's end by more than this came from a process that outlived its run: 5 s and a bit."""
    healthy_after_s: float = 60.0
    """A run that lived for so long did not fail at the start."""
    awake_grace_s: float = 12.0
    """After the supervisor itself was away (restart, sleeping machine), services get this long for a heartbeat."""
    backoff_first_s: float = 10.0
    backoff_most_s: float = 300.0


class ActionKind(Enum):
    """What can be done about a service."""

    LAUNCH = "launch"
    TERMINATE = "terminate"
    MARK_FAILED = "mark failed"
    WAIT = "wait"
    WARN = "warn"  # wait, and say so: only an operator can help


@dataclass(frozen=True)
class Action:
    """One thing to do, and why, as a sentence for a person; `run_id`: the run that it is about."""

    kind: ActionKind
    reason: str
    run_id: str | None = None


@dataclass(frozen=True)
class ServiceState:
    """What is known about one service.

    `lock_held` is None while its database is away; `lock_held_s`: for how long it was seen to be held. `ended` is
    newest first. `supervising_s`: for how long the supervisor has been looking without a break.
    """

    enabled: bool = True
    lock_held: bool | None = None
    lock_held_s: float = 0.0
    live: Sequence[LiveRun] = ()
    ended: Sequence[EndedRun] = ()
    heartbeat: LatestHeartbeat | None = None
    supervising_s: float = math.inf


_DEFAULT = Policy()


def decide(state: ServiceState, policy: Policy = _DEFAULT) -> list[Action]:
    """Return the actions of this tick; at most one of them is a launch, and only when no run is in progress."""
    if not state.enabled:
        if not state.live:
            return [Action(ActionKind.WAIT, "switched off")]
        return [_end(run, policy, "switched off") for run in state.live]
    if state.live:
        keeper = _choose_keeper(state)
        surplus = [_end(run, policy, "another run serves this already") for run in state.live if run is not keeper]
        return [*surplus, _watch(keeper, state, policy)]
    return [_launch_or_wait(state, policy)]


def _launch_or_wait(state: ServiceState, policy: Policy) -> Action:
    holder = _find_holder(state, policy)
    if holder is not None:
        return holder
    failures = _count_failed_starts(state, policy)
    if failures >= 2:
        pause_s = exponential(policy.backoff_first_s, policy.backoff_most_s, failures - 2)
        left_s = pause_s - state.ended[0].ended_s
        if left_s > 0:
            return Action(ActionKind.WAIT, f"{failures} short runs in a row; next attempt in {left_s:.0f} s")
    last = state.ended[0] if state.ended else None
    if last is not None and last.by_hand:
        # With the ended run's id: its page is to say what becomes of it.
        return Action(ActionKind.LAUNCH, "its run was terminated by hand, and its switch is on", last.run_id)
    return Action(ActionKind.LAUNCH, "not running" if not failures else f"not running; {failures} short runs before")


def _find_holder(state: ServiceState, policy: Policy) -> Action | None:
    """Say who works although no run is in progress; None: nobody. A holder without a heartbeat may hang for ever."""
    beat = state.heartbeat
    fresh = beat is not None and _is_fresh(beat, policy)
    if beat is not None and fresh and beat.run_id is None:
        # Also while the lock is free: after a restart of its database the service takes it again within seconds.
        return Action(ActionKind.WAIT, "runs outside Dagster")
    if state.lock_held:
        if not fresh and state.lock_held_s > policy.heartbeat_limit_s and state.supervising_s >= policy.awake_grace_s:
            reason = f"a process has held its lock for {state.lock_held_s:.0f} s without a heartbeat"
            return Action(ActionKind.WARN, reason)
        reason = "no run is in progress, and a process holds its lock; the next run starts when that is free"
        return Action(ActionKind.WAIT, reason)
    if beat is not None and fresh and state.lock_held is None:
        ended_s = next((run.ended_s for run in state.ended if run.run_id == beat.run_id), None)
        if ended_s is not None and ended_s - beat.age_s > policy.final_heartbeat_grace_s:
            reason = "the process of an ended run still works; the next run starts when it is silent"
            return Action(ActionKind.WAIT, reason)
    if state.lock_held is None and state.supervising_s < policy.awake_grace_s:
        # Right after a start, on a busy machine, the first read of the lock may take longer than a tick.
        return Action(ActionKind.WAIT, "its database has not said yet whether its lock is free")
    return None


def _watch(run: LiveRun, state: ServiceState, policy: Policy) -> Action:
    if run.state is RunState.CANCELING:
        if run.age_s > policy.cancel_limit_s:
            reason = f"did not end within {policy.cancel_limit_s:.0f} s of the request to"
            return Action(ActionKind.MARK_FAILED, reason, run.run_id)
        return Action(ActionKind.WAIT, "ending; its switch is on, so the next run follows")
    if run.state is RunState.WAITING:
        if run.age_s > policy.start_limit_s:
            return Action(ActionKind.MARK_FAILED, f"did not start within {policy.start_limit_s:.0f} s", run.run_id)
        return Action(ActionKind.WAIT, "starting")
    beat = state.heartbeat
    if beat is not None and beat.run_id == run.run_id:
        if beat.age_s <= policy.heartbeat_limit_s:
            return Action(ActionKind.WAIT, f"running, last heartbeat {beat.age_s:.0f} s ago")
        if state.supervising_s < policy.awake_grace_s:
            return Action(ActionKind.WAIT, f"last heartbeat {beat.age_s:.0f} s ago, but the supervisor was away")
        return Action(ActionKind.MARK_FAILED, f"no heartbeat for {beat.age_s:.0f} s", run.run_id)
    if (
        beat is not None
        and _is_fresh(beat, policy)
        and run.age_s - beat.age_s > policy.final_heartbeat_grace_s  # not the last one of a predecessor
    ):
        if beat.run_id is None:
            return Action(ActionKind.TERMINATE, "the service runs outside Dagster already", run.run_id)
        return Action(ActionKind.WAIT, f"running, behind a process of run {beat.run_id[:8]} that still works")
    if run.age_s > policy.start_limit_s:
        reason = f"no heartbeat within {policy.start_limit_s:.0f} s of its start"
        return Action(ActionKind.MARK_FAILED, reason, run.run_id)
    return Action(ActionKind.WAIT, "running, no heartbeat yet")


def _is_fresh(beat: LatestHeartbeat, policy: Policy) -> bool:
    return not beat.stopped and beat.age_s <= policy.heartbeat_limit_s


def _count_failed_starts(state: ServiceState, policy: Policy) -> int:
    """Count the newest runs in a row that ended within `healthy_after_s` of their start.

    What ended before the supervisor looked does not count: stopping the whole platform ends young runs too. Neither
    does what was terminated by hand: it had not failed.
    """
    count = 0
    for run in state.ended:
        if run.ended_s >= state.supervising_s or run.lived_s >= policy.healthy_after_s or run.by_hand:
            break
        count += 1
    return count


def _choose_keeper(state: ServiceState) -> LiveRun:
    """Choose the run that stays of several: the one with the heartbeat, else the oldest in the best state."""
    beat = state.heartbeat
    rank = {RunState.RUNNING: 0, RunState.WAITING: 1, RunState.CANCELING: 2}
    return min(
        state.live,
        key=lambda run: (beat is None or beat.run_id != run.run_id, rank[run.state], run.number, run.run_id),
    )


def _end(run: LiveRun, policy: Policy, reason: str) -> Action:
    if run.state is not RunState.CANCELING:
        return Action(ActionKind.TERMINATE, reason, run.run_id)
    if run.age_s > policy.cancel_limit_s:
        return Action(ActionKind.MARK_FAILED, f"{reason}, and did not end on request", run.run_id)
    return Action(ActionKind.WAIT, f"{reason}; ending")
