"""When connections are made and made anew: one after another, and not every gatherer at once. Pure; time is given."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable


class ConnectThrottle:
    """Turns for handshakes: when all connections of a gatherer are cut at once, they come back one by one."""

    def __init__(self, spacing_s: float, random: Callable[[], float]) -> None:
        """Turns are between half and one and a half `spacing_s` apart. `random` gives numbers in [0, 1)."""
        self._spacing_s = spacing_s
        self._random = random
        self._next = 0.0
        self._lock = threading.Lock()

    def delay(self, now: float) -> float:
        """Take the next turn; return the seconds to wait for it, 0 if nobody is before. `now` is monotonic."""
        with self._lock:
            turn = max(self._next, now)
            self._next = turn + self._spacing_s * (0.5 + self._random())
            return turn - now


class RotationSchedule:
    """When one connection is due to be replaced by a fresh one.

    The first time lies between a half and a whole interval after the start, depending on `name`, so that gatherers and
    connections that started together are not renewed together; then it is the interval give or take a tenth.
    """

    def __init__(self, interval_s: float, name: str, now: float, random: Callable[[], float]) -> None:
        """`interval_s` 0: never. `name`: of gatherer and connection. `now` is monotonic."""
        self._interval_s = interval_s
        self._random = random
        share = zlib.crc32(name.encode()) / 2**32
        self.due = now + interval_s * (0.5 + 0.5 * share)
        """Monotonic."""

    def is_due(self, now: float) -> bool:
        """Whether it is time."""
        return self._interval_s > 0 and now >= self.due

    def done(self, now: float) -> None:
        """It was replaced, or that was given up for this time."""
        self.due = now + self._interval_s * (0.9 + 0.2 * self._random())
