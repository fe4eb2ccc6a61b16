"""Draws ids for sessions and streams: 63-bit, ascending, unique across gatherers and restarts.

Layout: 51 bits of microseconds since 2020 (enough until 2091), 12 bits of the gatherer's name. Two gatherers collide
only when their names share those bits and both draw a number in the same microsecond.
"""

from __future__ import annotations

import threading

from kalshi_platform.clock import Clock
from kalshi_platform.market.identity import fingerprint

_SINCE_US = 1_577_836_800 * 1_000_000  # 2020-01-01
_NAME_BITS = 12


class IdSource:
    """Draws ids for one gatherer process, and keeps those of its open sessions, to tell them from others."""

    def __init__(self, gatherer: str, clock: Clock) -> None:
        self._name = fingerprint("gatherer", gatherer) & ((1 << _NAME_BITS) - 1)
        self._clock = clock
        self._last_us = 0
        self._sessions: set[int] = set()
        self._lock = threading.Lock()

    def new_id(self) -> int:
        """Return a number larger than every one drawn before (also when the clock steps back)."""
        with self._lock:
            return self._draw()

    def new_session_id(self) -> int:
        """Return a number like `new_id`, and add it to `sessions`."""
        with self._lock:
            number = self._draw()
            self._sessions.add(number)
            return number

    def end_session(self, session_id: int) -> None:
        """Take a session that is over out of `sessions`."""
        with self._lock:
            self._sessions.discard(session_id)

    @property
    def sessions(self) -> frozenset[int]:
        """Return the sessions of this process that are not over."""
        with self._lock:
            return frozenset(self._sessions)

    def _draw(self) -> int:
        now_us = self._clock.now_ns() // 1_000 - _SINCE_US
        self._last_us = max(now_us, self._last_us + 1)
        return (self._last_us << _NAME_BITS) | self._name
