"""The supervisor's decision, case by case."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

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

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def running(run_id: str = "r1", since_s: float = 600) -> LiveRun:
    return LiveRun(run_id, RunState.RUNNING, ago(since_s))


def waiting(run_id: str = "r1", since_s: float = 1) -> LiveRun:
    return LiveRun(run_id, RunState.WAITING, ago(since_s))


def canceling(run_id: str = "r1", since_s: float = 1) -> LiveRun:
    return LiveRun(run_id, RunState.CANCELING, ago(since_s))


def beat(age_s: float, run_id: str | None = "r1", *, stopped: bool = False) -> Heartbeat:
    return Heartbeat(ago(age_s), run_id, stopped)


def ended(run_id: str, ended_s: float, lived_s: float) -> EndedRun:
    return EndedRun(run_id, ago(ended_s + lived_s), ago(ended_s))


CASES = {
    "nothing was ever there": (Facts(NOW), [(Act.LAUNCH, None)]),
    "a run with a fresh heartbeat is left alone": (Facts(NOW, live=[running()], heartbeat=beat(4)), [(Act.WAIT, None)]),
    "a silent run is ended": (Facts(NOW, live=[running()], heartbeat=beat(46)), [(Act.MARK_FAILED, "r1")]),
    "a run may take its time to the first heartbeat": (
        Facts(NOW, live=[running(since_s=100)], heartbeat=beat(300, "r0")),
        [(Act.WAIT, None)],
    ),
    "a run that never sent a heartbeat is ended": (
        Facts(NOW, live=[running(since_s=121)], heartbeat=None),
        [(Act.MARK_FAILED, "r1")],
    ),
    "a queued run counts as there": (Facts(NOW, live=[waiting()], heartbeat=beat(900, "r0")), [(Act.WAIT, None)]),
    "a run that stays in the queue is given up": (Facts(NOW, live=[waiting(since_s=121)]), [(Act.MARK_FAILED, "r1")]),
    "a run that is ending gets time": (Facts(NOW, live=[canceling()], heartbeat=beat(1)), [(Act.WAIT, None)]),
    "a run that does not end is marked": (Facts(NOW, live=[canceling(since_s=61)]), [(Act.MARK_FAILED, "r1")]),
    "of two runs the one that is heard of stays": (
        Facts(NOW, live=[running("r1"), running("r2", 60)], heartbeat=beat(2, "r2")),
        [(Act.TERMINATE, "r1"), (Act.WAIT, None)],
    ),
    "of two silent runs the older stays": (
        Facts(NOW, live=[running("r2", 50), running("r1", 60)]),
        [(Act.TERMINATE, "r2"), (Act.WAIT, None)],
    ),
    "a service outside Dagster is left alone": (Facts(NOW, heartbeat=beat(10, None)), [(Act.WAIT, None)]),
    "a service outside Dagster that fell silent is replaced": (
        Facts(NOW, heartbeat=beat(46, None)),
        [(Act.LAUNCH, None)],
    ),
    "a service outside Dagster that said goodbye is replaced at once": (
        Facts(NOW, heartbeat=beat(2, None, stopped=True)),
        [(Act.LAUNCH, None)],
    ),
    "a run beside a service outside Dagster is ended": (
        Facts(NOW, live=[running(since_s=60)], heartbeat=beat(2, None)),
        [(Act.TERMINATE, "r1")],
    ),
    "a run that has just taken over from outside is not": (
        Facts(NOW, live=[running(since_s=5)], heartbeat=beat(4, None)),
        [(Act.WAIT, None)],
    ),
    "a killed run is replaced at once, its last heartbeat being older than its end": (
        Facts(NOW, ended=[ended("r1", 2, 3600)], heartbeat=beat(5)),
        [(Act.LAUNCH, None)],
    ),
    "a process that outlives its run is waited for": (
        Facts(NOW, ended=[ended("r1", 20, 3600)], heartbeat=beat(2)),
        [(Act.WAIT, None)],
    ),
    "a process that outlived its run and fell silent is replaced": (
        Facts(NOW, ended=[ended("r1", 100, 3600)], heartbeat=beat(46)),
        [(Act.LAUNCH, None)],
    ),
    "one short run is repeated at once": (Facts(NOW, ended=[ended("r1", 1, 5)]), [(Act.LAUNCH, None)]),
    "two short runs bring a pause": (
        Facts(NOW, ended=[ended("r2", 1, 5), ended("r1", 8, 5)]),
        [(Act.WAIT, None)],
    ),
    "the pause ends": (Facts(NOW, ended=[ended("r2", 11, 5), ended("r1", 30, 5)]), [(Act.LAUNCH, None)]),
    "many short runs bring a long pause": (
        Facts(NOW, ended=[ended(f"r{n}", 299 + 10 * n, 5) for n in range(12)]),
        [(Act.WAIT, None)],
    ),
    "but never longer than five minutes": (
        Facts(NOW, ended=[ended(f"r{n}", 301 + 10 * n, 5) for n in range(12)]),
        [(Act.LAUNCH, None)],
    ),
    "a long run ends the count": (
        Facts(NOW, ended=[ended("r3", 1, 5), ended("r2", 10, 90), ended("r1", 200, 1)]),
        [(Act.LAUNCH, None)],
    ),
    "short runs that ended while the supervisor was away do not count": (
        Facts(NOW, ended=[ended(f"r{n}", 6 + n, 5) for n in range(5)], attentive_since=ago(5)),
        [(Act.LAUNCH, None)],
    ),
    "those that ended since do": (
        Facts(NOW, ended=[ended(f"r{n}", 1 + n, 5) for n in range(5)], attentive_since=ago(5)),
        [(Act.WAIT, None)],
    ),
    "switched off and nothing there": (Facts(NOW, wanted=False), [(Act.WAIT, None)]),
    "switched off ends every run": (
        Facts(NOW, wanted=False, live=[running(), waiting("r2")], heartbeat=beat(1)),
        [(Act.TERMINATE, "r1"), (Act.TERMINATE, "r2")],
    ),
    "switched off and ending": (Facts(NOW, wanted=False, live=[canceling()]), [(Act.WAIT, None)]),
    "switched off and refusing to end": (
        Facts(NOW, wanted=False, live=[canceling(since_s=61)]),
        [(Act.MARK_FAILED, "r1")],
    ),
    "after an absence of the supervisor a silent run gets a moment": (
        Facts(NOW, live=[running()], heartbeat=beat(500), attentive_since=ago(5)),
        [(Act.WAIT, None)],
    ),
    "and then is ended": (
        Facts(NOW, live=[running()], heartbeat=beat(500), attentive_since=ago(13)),
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
