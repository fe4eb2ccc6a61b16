"""Threads of a service: a failure of one ends nothing."""

from __future__ import annotations

import threading

from kalshi_platform.gatherer.threads import ThreadGroup
from kalshi_platform_tests.fixtures.clocks import FakeClock


def test_a_failure_is_logged_and_the_work_restarted() -> None:
    threads = ThreadGroup("g1", FakeClock(), threading.Event())
    calls: list[int] = []

    def follow() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("can't start new thread")

    threads.run_restarting("markets followed", follow)
    assert len(calls) == 3
