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
        self._set_base()

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        offset = self._offset()
        if offset != self._last_offset:
            self._last_offset = offset
            self._set_base(self._correction.update(offset))
        elif self._clock.pace() != self._pace:
            self._set_base(self._ahead_s)
        return int((self._base_s + (self._clock.monotonic() - self._base_monotonic_s) * self._pace) * 1e6)

    def _set_base(self, ahead_s: float = 0.0) -> None:
        """Count from here on from the machine's clock, which is `ahead_s` ahead of the exchange's."""
        self._ahead_s = ahead_s
        self._pace = self._clock.pace()
        self._base_monotonic_s = self._clock.monotonic()
        self._base_s = self._clock.now_ns() / 1e9 - ahead_s
