"""Computes the time of the exchange, which opens and closes markets by its own clock."""

from __future__ import annotations

from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.market.clock_offset import Correction, Offset


class ExchangeClock:
    """Corrects this machine's clock where the exchange's answers show that it is off. For one thread.

    Between the answers the monotonic clock counts, so that setting the wall clock changes nothing.
    """

    def __init__(self, clock: Clock, offset: Callable[[], Offset | None]) -> None:
        """Set up the clock; `offset` returns our clock against the exchange's, by its last answers."""
        self._clock = clock
        self._offset = offset
        self._correction = Correction()
        self._last_offset: Offset | None = None
        self._ahead_s = self._ahead_of_monotonic_s()

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        offset = self._offset()
        if offset != self._last_offset:
            self._last_offset = offset
            self._ahead_s = self._ahead_of_monotonic_s() - self._correction.update(offset)
        return int((self._clock.monotonic() + self._ahead_s) * 1e6)

    def _ahead_of_monotonic_s(self) -> float:
        return self._clock.now_ns() / 1e9 - self._clock.monotonic()
