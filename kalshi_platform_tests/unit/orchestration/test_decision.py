"""The supervisor's decision, case by case."""

from __future__ import annotations

import pytest

from kalshi_platform.orchestration.supervision.decision import (
    Act,
    EndedRun,
    Facts,
    Heartbeat,
    LiveRun,
    RunState,
    decide,
)


def running(run_id: str = "r1", since_s: float = 600) -> LiveRun:
    return LiveRun(run_id, RunState.RUNNING, since_s, int(run_id[1:]))


def waiting(run_id: str = "r1", since_s: float = 1) -> LiveRun:
    return LiveRun(run_id, RunState.WAITING, since_s, int(run_id[1:]))


def canceling(run_id: str = "r1", since_s: float = 1) -> LiveRun:
    return LiveRun(run_id, RunState.CANCELING, since_s, int(run_id[1:]))


def beat(age_s: float, run_id: str | None = "r1", *, stopped: bool = False) -> Heartbeat:
    return Heartbeat(age_s, run_id, stopped)


def ended(run_id: str, ended_s: float, lived_s: float) -> EndedRun:
    return EndedRun(run_id, lived_s, ended_s)


CASES = {
    "nothing was ever there": (Facts(), [(Act.LAUNCH, None)]),
    "a run with a fresh heartbeat is left alone": (Facts(live=[running()], heartbeat=beat(4)), [(Act.WAIT, None)]),
    "a silent run is ended": (Facts(live=[running()], heartbeat=beat(46)), [(Act.MARK_FAILED, "r1")]),
    "a run may take its time to the first heartbeat": (
        Facts(live=[running(since_s=100)], heartbeat=beat(300, "r0")),
        [(Act.WAIT, None)],
    ),
    "a run that never sent a heartbeat is ended": (
        Facts(live=[running(since_s=121)], heartbeat=None),
        [(Act.MARK_FAILED, "r1")],
    ),
    "a queued run counts as there": (Facts(live=[waiting()], heartbeat=beat(900, "r0")), [(Act.WAIT, None)]),
    "a run that stays in the queue is given up": (Facts(live=[waiting(since_s=121)]), [(Act.MARK_FAILED, "r1")]),
    "a run that is ending gets time": (Facts(live=[canceling()], heartbeat=beat(1)), [(Act.WAIT, None)]),
    "a run that does not end is marked": (Facts(live=[canceling(since_s=61)]), [(Act.MARK_FAILED, "r1")]),
    "of two runs the one that is heard of stays": (
        Facts(live=[running("r1"), running("r2", 60)], heartbeat=beat(2, "r2")),
        [(Act.TERMINATE, "r1"), (Act.WAIT, None)],
    ),
    "of two silent runs the older stays": (
        Facts(live=[running("r2", 50), running("r1", 60)]),
        [(Act.TERMINATE, "r2"), (Act.WAIT, None)],
    ),
    "a service outside Dagster is left alone": (Facts(heartbeat=beat(10, None)), [(Act.WAIT, None)]),
    "a service outside Dagster that fell silent is replaced": (
        Facts(heartbeat=beat(46, None)),
        [(Act.LAUNCH, None)],
    ),
    "a service outside Dagster that said goodbye is replaced at once": (
        Facts(heartbeat=beat(2, None, stopped=True)),
        [(Act.LAUNCH, None)],
    ),
    "a run beside a service outside Dagster is ended": (
        Facts(live=[running(since_s=60)], heartbeat=beat(2, None)),
        [(Act.TERMINATE, "r1")],
    ),
    "a run that has just taken over from outside is not": (
        Facts(live=[running(since_s=5)], heartbeat=beat(4, None)),
        [(Act.WAIT, None)],
    ),
    "a killed run is replaced at once, its last heartbeat being older than its end": (
        Facts(ended=[ended("r1", 2, 3600)], heartbeat=beat(5)),
        [(Act.LAUNCH, None)],
    ),
    "a process that outlives its run is waited for": (
        Facts(ended=[ended("r1", 20, 3600)], heartbeat=beat(2)),
        [(Act.WAIT, None)],
    ),
    "a process that outlived its run and fell silent is replaced": (
        Facts(ended=[ended("r1", 100, 3600)], heartbeat=beat(46)),
        [(Act.LAUNCH, None)],
    ),
    "one short run is repeated at once": (Facts(ended=[ended("r1", 1, 5)]), [(Act.LAUNCH, None)]),
    "two short runs bring a pause": (
        Facts(ended=[ended("r2", 1, 5), ended("r1", 8, 5)]),
        [(Act.WAIT, None)],
    ),
    "the pause ends": (Facts(ended=[ended("r2", 11, 5), ended("r1", 30, 5)]), [(Act.LAUNCH, None)]),
    "many short runs bring a long pause": (
        Facts(ended=[ended(f"r{n}", 299 + 10 * n, 5) for n in range(12)]),
        [(Act.WAIT, None)],
    ),
    "but never longer than five minutes": (
        Facts(ended=[ended(f"r{n}", 301 + 10 * n, 5) for n in range(12)]),
        [(Act.LAUNCH, None)],
    ),
    "a long run ends the count": (
        Facts(ended=[ended("r3", 1, 5), ended("r2", 10, 90), ended("r1", 200, 1)]),
        [(Act.LAUNCH, None)],
    ),
    "short runs that ended while the supervisor was away do not count": (
        Facts(ended=[ended(f"r{n}", 6 + n, 5) for n in range(5)], attentive_s=5),
        [(Act.LAUNCH, None)],
    ),
    "those that ended since do": (
        Facts(ended=[ended(f"r{n}", 1 + n, 5) for n in range(5)], attentive_s=5),
        [(Act.WAIT, None)],
    ),
    "switched off and nothing there": (Facts(wanted=False), [(Act.WAIT, None)]),
    "switched off ends every run": (
        Facts(wanted=False, live=[running(), waiting("r2")], heartbeat=beat(1)),
        [(Act.TERMINATE, "r1"), (Act.TERMINATE, "r2")],
    ),
    "switched off and ending": (Facts(wanted=False, live=[canceling()]), [(Act.WAIT, None)]),
    "switched off and refusing to end": (
        Facts(wanted=False, live=[canceling(since_s=61)]),
        [(Act.MARK_FAILED, "r1")],
    ),
    "after an absence of the supervisor a silent run gets a moment": (
        Facts(live=[running()], heartbeat=beat(500), attentive_s=5),
        [(Act.WAIT, None)],
    ),
    "and then is ended": (
        Facts(live=[running()], heartbeat=beat(500), attentive_s=13),
        [(Act.MARK_FAILED, "r1")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_decision(name: str) -> None:
    facts, expected = CASES[name]
    steps = decide(facts)
    assert [(step.act, step.run_id) for step in steps] == expected
    assert all(step.reason for step in steps)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_launched_beside_a_run_in_progress(name: str) -> None:
    facts, _ = CASES[name]
    launches = [step for step in decide(facts) if step.act is Act.LAUNCH]
    assert len(launches) <= (0 if facts.live else 1)
