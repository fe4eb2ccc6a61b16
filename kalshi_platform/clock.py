"""The only place that asks the machine for the time. Everything is UTC."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What time it is and how to wait; tests put a fake in."""

    def now(self) -> datetime:
        """Return the current time, timezone-aware, UTC."""

    def now_ns(self) -> int:
        """Return nanoseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Return seconds of a clock that never steps back."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait until `stop` is set or `seconds` passed; return whether it is set."""

    def pace(self) -> float:
        """Return how many seconds of `now` pass in a second of `monotonic`: 1, except in simulations."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the system's time, aware, in UTC."""
        return datetime.now(UTC)

    def now_ns(self) -> int:
        """Return the system's time in nanoseconds since 1970."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Return seconds that never go back, for durations."""
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait until `stop` is set or `seconds` have passed; return whether it is set."""
        return stop.wait(max(0.0, seconds))

    def pace(self) -> float:
        """Return 1: both measure the same seconds."""
        return 1.0


def wait_until_s(clock: Clock, seconds: float) -> float:
    """Return the seconds to wait for `seconds` of `now` to pass; of a clock that stands still at most one second."""
    pace = clock.pace()
    return seconds / pace if pace > 0 else min(seconds, 1.0)


SYSTEM_CLOCK = SystemClock()
