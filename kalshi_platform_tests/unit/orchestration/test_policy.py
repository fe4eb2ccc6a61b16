"""What the supervisor decides, case by case."""

from __future__ import annotations

import pytest

from kalshi_platform.orchestration.supervision.policy import (
    ActionKind,
    EndedRun,
    LatestHeartbeat,
    LiveRun,
    RunState,
    ServiceState,
    decide,
)


def running(run_id: str = "r1", since_s: float = 600) -> LiveRun:
    return LiveRun(run_id, RunState.RUNNING, since_s, int(run_id[1:]))


def waiting(run_id: str = "r1", since_s: float = 1) -> LiveRun:
    return LiveRun(run_id, RunState.WAITING, since_s, int(run_id[1:]))


def canceling(run_id: str = "r1", since_s: float = 1) -> LiveRun:
    return LiveRun(run_id, RunState.CANCELING, since_s, int(run_id[1:]))


def beat(age_s: float, run_id: str | None = "r1", *, stopped: bool = False) -> LatestHeartbeat:
    return LatestHeartbeat(age_s, run_id, stopped)


def ended(run_id: str, ended_s: float, lived_s: float, *, by_hand: bool = False) -> EndedRun:
    return EndedRun(run_id, lived_s, ended_s, by_hand)


CASES = {
    "nothing was ever there": (ServiceState(), [(ActionKind.LAUNCH, None)]),
    "a run with a fresh heartbeat is left alone": (
        ServiceState(live=[running()], heartbeat=beat(4)),
        [(ActionKind.WAIT, None)],
    ),
    "a silent run is ended": (ServiceState(live=[running()], heartbeat=beat(46)), [(ActionKind.MARK_FAILED, "r1")]),
    "a run may take its time to the first heartbeat": (
        ServiceState(live=[running(since_s=100)], heartbeat=beat(300, "r0")),
        [(ActionKind.WAIT, None)],
    ),
    "a run that never sent a heartbeat is ended": (
        ServiceState(live=[running(since_s=121)], heartbeat=None),
        [(ActionKind.MARK_FAILED, "r1")],
    ),
    "a queued run counts as there": (
        ServiceState(live=[waiting()], heartbeat=beat(900, "r0")),
        [(ActionKind.WAIT, None)],
    ),
    "a run that stays in the queue is given up": (
        ServiceState(live=[waiting(since_s=121)]),
        [(ActionKind.MARK_FAILED, "r1")],
    ),
    "a run that is ending gets time": (ServiceState(live=[canceling()], heartbeat=beat(1)), [(ActionKind.WAIT, None)]),
    "a run that does not end is marked": (ServiceState(live=[canceling(since_s=61)]), [(ActionKind.MARK_FAILED, "r1")]),
    "of two runs the one with the heartbeat stays": (
        ServiceState(live=[running("r1"), running("r2", 60)], heartbeat=beat(2, "r2")),
        [(ActionKind.TERMINATE, "r1"), (ActionKind.WAIT, None)],
    ),
    "of two silent runs the older stays": (
        ServiceState(live=[running("r2", 50), running("r1", 60)]),
        [(ActionKind.TERMINATE, "r2"), (ActionKind.WAIT, None)],
    ),
    "a service outside Dagster is left alone": (ServiceState(heartbeat=beat(10, None)), [(ActionKind.WAIT, None)]),
    "a service outside Dagster that fell silent is replaced": (
        ServiceState(heartbeat=beat(46, None)),
        [(ActionKind.LAUNCH, None)],
    ),
    "a service outside Dagster that has stopped is replaced at once": (
        ServiceState(heartbeat=beat(2, None, stopped=True)),
        [(ActionKind.LAUNCH, None)],
    ),
    "a run beside a service outside Dagster is ended": (
        ServiceState(live=[running(since_s=60)], heartbeat=beat(2, None)),
        [(ActionKind.TERMINATE, "r1")],
    ),
    "a run that has just taken over from outside is not": (
        ServiceState(live=[running(since_s=5)], heartbeat=beat(4, None)),
        [(ActionKind.WAIT, None)],
    ),
    "a killed run is replaced at once, its last heartbeat being older than its end": (
        ServiceState(ended=[ended("r1", 2, 3600)], heartbeat=beat(5)),
        [(ActionKind.LAUNCH, None)],
    ),
    "a run that was terminated by hand is launched again, and its page is to say so": (
        ServiceState(ended=[ended("r1", 2, 3600, by_hand=True)], heartbeat=beat(5)),
        [(ActionKind.LAUNCH, "r1")],
    ),
    "a run that was terminated by hand stays off when it is switched off": (
        ServiceState(enabled=False, ended=[ended("r1", 2, 3600, by_hand=True)], heartbeat=beat(5)),
        [(ActionKind.WAIT, None)],
    ),
    "runs that were terminated by hand are no failed starts": (
        ServiceState(ended=[ended(f"r{n}", 2 + n, 5, by_hand=True) for n in (3, 2, 1)], supervising_s=600),
        [(ActionKind.LAUNCH, "r3")],
    ),
    "a process that outlives its run is waited for": (
        ServiceState(ended=[ended("r1", 20, 3600)], heartbeat=beat(2)),
        [(ActionKind.WAIT, None)],
    ),
    "a process that outlives its run is waited for while it holds the lock, also a silent one": (
        ServiceState(lock_held=True, ended=[ended("r1", 100, 3600)], heartbeat=beat(46)),
        [(ActionKind.WAIT, None)],
    ),
    "a lock that is held without any heartbeat is waited for": (
        ServiceState(lock_held=True),
        [(ActionKind.WAIT, None)],
    ),
    "a lock that is held for long without any heartbeat is an operator's to look at": (
        ServiceState(lock_held=True, lock_held_s=46),
        [(ActionKind.WARN, None)],
    ),
    "a lock that is held for long by a process that has fallen silent is an operator's to look at": (
        ServiceState(lock_held=True, lock_held_s=600, ended=[ended("r1", 100, 3600)], heartbeat=beat(46)),
        [(ActionKind.WARN, None)],
    ),
    "a lock that is held for long by a process with a fresh heartbeat is waited for": (
        ServiceState(lock_held=True, lock_held_s=600, ended=[ended("r1", 100, 3600)], heartbeat=beat(4)),
        [(ActionKind.WAIT, None)],
    ),
    "a lock that is held for long is waited for while the supervisor has only just come back": (
        ServiceState(lock_held=True, lock_held_s=600, supervising_s=5),
        [(ActionKind.WAIT, None)],
    ),
    "a process that outlived its run and gave the lock back is replaced at once": (
        ServiceState(lock_held=False, ended=[ended("r1", 20, 3600)], heartbeat=beat(2)),
        [(ActionKind.LAUNCH, None)],
    ),
    "a killed run whose lock is free is replaced at once": (
        ServiceState(lock_held=False, ended=[ended("r1", 2, 3600)], heartbeat=beat(1)),
        [(ActionKind.LAUNCH, None)],
    ),
    "a service outside Dagster that lost its lock for a moment is left alone": (
        ServiceState(lock_held=False, heartbeat=beat(4, None)),
        [(ActionKind.WAIT, None)],
    ),
    "a lock held for a run in progress changes nothing": (
        ServiceState(lock_held=True, live=[running()], heartbeat=beat(46)),
        [(ActionKind.MARK_FAILED, "r1")],
    ),
    "switched off with the lock held": (ServiceState(enabled=False, lock_held=True), [(ActionKind.WAIT, None)]),
    "a process that outlived its run and fell silent is replaced": (
        ServiceState(ended=[ended("r1", 100, 3600)], heartbeat=beat(46)),
        [(ActionKind.LAUNCH, None)],
    ),
    "one short run is repeated at once": (ServiceState(ended=[ended("r1", 1, 5)]), [(ActionKind.LAUNCH, None)]),
    "two short runs bring a pause": (
        ServiceState(ended=[ended("r2", 1, 5), ended("r1", 8, 5)]),
        [(ActionKind.WAIT, None)],
    ),
    "the pause ends": (ServiceState(ended=[ended("r2", 11, 5), ended("r1", 30, 5)]), [(ActionKind.LAUNCH, None)]),
    "many short runs bring a long pause": (
        ServiceState(ended=[ended(f"r{n}", 299 + 10 * n, 5) for n in range(12)]),
        [(ActionKind.WAIT, None)],
    ),
    "but never longer than five minutes": (
        ServiceState(ended=[ended(f"r{n}", 301 + 10 * n, 5) for n in range(12)]),
        [(ActionKind.LAUNCH, None)],
    ),
    "a long run ends the count": (
        ServiceState(ended=[ended("r3", 1, 5), ended("r2", 10, 90), ended("r1", 200, 1)]),
        [(ActionKind.LAUNCH, None)],
    ),
    "short runs that ended while the supervisor was away do not count": (
        ServiceState(lock_held=False, ended=[ended(f"r{n}", 6 + n, 5) for n in range(5)], supervising_s=5),
        [(ActionKind.LAUNCH, None)],
    ),
    "those that ended since do": (
        ServiceState(ended=[ended(f"r{n}", 1 + n, 5) for n in range(5)], supervising_s=5),
        [(ActionKind.WAIT, None)],
    ),
    "switched off and nothing there": (ServiceState(enabled=False), [(ActionKind.WAIT, None)]),
    "switched off ends every run": (
        ServiceState(enabled=False, live=[running(), waiting("r2")], heartbeat=beat(1)),
        [(ActionKind.TERMINATE, "r1"), (ActionKind.TERMINATE, "r2")],
    ),
    "switched off and ending": (ServiceState(enabled=False, live=[canceling()]), [(ActionKind.WAIT, None)]),
    "switched off and refusing to end": (
        ServiceState(enabled=False, live=[canceling(since_s=61)]),
        [(ActionKind.MARK_FAILED, "r1")],
    ),
    "right after its start the supervisor waits for a database that has not answered": (
        ServiceState(supervising_s=5),
        [(ActionKind.WAIT, None)],
    ),
    "and then takes it for away": (ServiceState(supervising_s=13), [(ActionKind.LAUNCH, None)]),
    "after an absence of the supervisor a silent run gets a moment": (
        ServiceState(live=[running()], heartbeat=beat(500), supervising_s=5),
        [(ActionKind.WAIT, None)],
    ),
    "and then is ended": (
        ServiceState(live=[running()], heartbeat=beat(500), supervising_s=13),
        [(ActionKind.MARK_FAILED, "r1")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_state_gives_the_actions_of_the_table(name: str) -> None:
    state, expected = CASES[name]
    actions = decide(state)
    assert [(action.kind, action.run_id) for action in actions] == expected
    assert all(action.reason for action in actions)


@pytest.mark.parametrize("name", CASES)
def test_state_with_a_run_in_progress_gives_no_launch(name: str) -> None:
    state, _ = CASES[name]
    launches = [action for action in decide(state) if action.kind is ActionKind.LAUNCH]
    assert len(launches) <= (0 if state.live else 1)
