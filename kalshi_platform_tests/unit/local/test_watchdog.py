"""The decisions of the watchdog."""

from __future__ import annotations

import pytest

from kalshi_platform.errors import DatabaseUnavailable, TransientError
from kalshi_platform.local.watchdog import Action, Watchdog, decide
from kalshi_platform_tests.fixtures.clocks import FakeClock


@pytest.mark.parametrize(
    ("silent_s", "last_action", "since_action_s", "expected"),
    [
        (44.9, Action.NOTHING, 1e9, Action.NOTHING),
        (45.0, Action.NOTHING, 1e9, Action.RESTART_DAEMON),
        (45.0, Action.RESTART, 119.9, Action.NOTHING),  # still starting
        (45.0, Action.RESTART, 120.0, Action.RESTART_DAEMON),
        (60.0, Action.RESTART_DAEMON, 39.0, Action.NOTHING),  # the daemon has its time
        (85.0, Action.RESTART_DAEMON, 40.0, Action.RESTART_DAEMON),
        (120.0, Action.RESTART_DAEMON, 39.0, Action.NOTHING),
        (120.0, Action.RESTART_DAEMON, 40.0, Action.RESTART),
        (500.0, Action.RESTART, 119.0, Action.NOTHING),
        (500.0, Action.RESTART, 120.0, Action.RESTART),
    ],
)
def test_decision(silent_s: float, last_action: Action, since_action_s: float, expected: Action) -> None:
    assert decide(silent_s, last_action, since_action_s) is expected


class Stack:
    """A Dagster that beats while it is healthy, and records what the watchdog does to it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.last_beat: str | None = None
        self.healthy = True
        self.readable = True
        self.done: list[tuple[Action, float]] = []
        self.begun = self.clock.monotonic()
        self.watchdog = Watchdog(self.beat, self.restart_daemon, self.restart, clock=self.clock)

    def beat(self) -> str | None:
        if not self.readable:
            raise DatabaseUnavailable("the server is away")
        return self.last_beat

    def restart_daemon(self) -> None:
        self.done.append((Action.RESTART_DAEMON, self.clock.monotonic() - self.begun))
        raise TransientError("it cannot be started")

    def restart(self) -> None:
        self.done.append((Action.RESTART, self.clock.monotonic() - self.begun))

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.step(1)
            if self.healthy:
                self.last_beat = self.clock.now().isoformat()
            self.watchdog.tick()


def test_a_beating_supervisor_is_left_alone() -> None:
    stack = Stack()
    stack.run(3600)
    assert stack.done == []


def test_silence_restarts_the_daemon_then_dagster_then_patience() -> None:
    stack = Stack()
    stack.run(200)
    stack.healthy = False
    stack.run(250)
    assert stack.done == [
        (Action.RESTART_DAEMON, 250),
        (Action.RESTART_DAEMON, 290),
        (Action.RESTART, 330),
        (Action.RESTART, 450),
    ]


def test_a_dagster_that_never_beats_gets_its_start_time_first() -> None:
    stack = Stack()
    stack.healthy = False
    stack.run(119)
    assert stack.done == []
    stack.run(1)
    assert stack.done == [(Action.RESTART, 120)]


def test_an_unreadable_heartbeat_decides_nothing() -> None:
    stack = Stack()
    stack.run(130)
    stack.healthy = stack.readable = False
    stack.run(600)
    assert stack.done == []


@pytest.mark.parametrize("set_by_s", [8 * 3600, -2 * 3600])
def test_a_clock_that_is_set_neither_makes_a_living_supervisor_silent_nor_hides_a_dead_one(set_by_s: float) -> None:
    stack = Stack()
    stack.run(200)
    stack.clock.set_wall(set_by_s)
    stack.run(200)
    assert stack.done == []
    stack.healthy = False
    stack.clock.set_wall(-set_by_s)
    stack.run(60)
    assert stack.done == [(Action.RESTART_DAEMON, 450)]


def test_after_everybody_was_held_up_heartbeats_get_time_to_come_back() -> None:
    stack = Stack()
    stack.run(200)
    stack.clock.step(8 * 3600)
    stack.healthy = False
    stack.run(20)
    stack.healthy = True
    stack.run(300)
    assert stack.done == []
