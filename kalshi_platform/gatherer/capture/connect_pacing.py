"""Paces handshakes and rotations of connections: one after another, and not all gatherers at once. Pure."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable


class ConnectThrottle:
    """Spaces handshakes, so that connections that are cut all at once reconnect one by one."""

    def __init__(self, spacing_s: float, random: Callable[[], float]) -> None:
        """Space handshakes by a half to one and a half `spacing_s`; `random` returns numbers in [0, 1)."""
        self._spacing_s = spacing_s
        self._random = random
        self._next = 0.0
        self._lock = threading.Lock()

    def delay(self, now: float) -> float:
        """Reserve the next handshake; return the seconds to wait for it, 0 if none precedes. `now` is monotonic."""
        with self._lock:
            turn = max(self._next, now)
            self._next = turn + self._spacing_s * (0.5 + self._random())
            return turn - now


class RotationSchedule:
    """Schedules the replacement of one connection by a fresh one.

    The first one is due between a half and a whole interval after the start, depending on `name`, so that gatherers and
    connections that started together do not rotate together; later ones after the interval plus or minus a tenth.
    """

    def __init__(self, interval_s: float, name: str, now: float, random: Callable[[], float]) -> None:
        """Start the schedule; `interval_s` 0 means never, `name` names gatherer and connection, `now` is monotonic."""
        self._interval_s = interval_s
        self._random = random
        share = zlib.crc32(name.encode()) / 2**32
        self.due = now + interval_s * (0.5 + 0.5 * share)
        """Time of the next rotation, monotonic."""

    def is_due(self, now: float) -> bool:
        """Return whether a rotation is due."""
        return self._interval_s > 0 and now >= self.due

    def done(self, now: float) -> None:
        """Schedule the next rotation, after one that was done or given up."""
        self.due = now + self._interval_s * (0.9 + 0.2 * self._random())
