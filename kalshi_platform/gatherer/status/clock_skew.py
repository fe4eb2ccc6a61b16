"""Compares this machine's clock with the exchange's and the database server's, and raises an alarm on large offsets."""

from __future__ import annotations

from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.gatherer.status.status import ClockStatus
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import clock_offset

ALARM = "clock_offset"
_DATABASE_INTERVAL_S = 60.0
_log = event_logger(__name__)


class ClockSkewMonitor:
    """Reports each pair of clocks once when their offset becomes large, and once when they agree again."""

    def __init__(
        self,
        name: str,
        database: Database,
        clock: Clock,
        exchange_offset: Callable[[], Offset | None],
        on_alarm: Callable[[str, str], None],
    ) -> None:
        """Set up the monitor.

        `exchange_offset` returns our clock against the exchange's; `on_alarm(kind, detail)` is called for each alarm.
        """
        self._name = name
        self._database = database
        self._clock = clock
        self._exchange_offset = exchange_offset
        self._on_alarm = on_alarm
        self._database_offset: Offset | None = None
        self._database_due_at = clock.monotonic()
        self._large: set[str] = set()

    def check_exchange(self) -> None:
        """Compare with the exchange's answers so far. From one thread, often."""
        self._check("the exchange's", self._exchange_offset())

    def check_database(self) -> None:
        """Compare with the database server, once a minute. From one thread, often. Raises DatabaseUnavailable."""
        now = self._clock.monotonic()
        if now < self._database_due_at:
            return
        self._database_due_at = now + _DATABASE_INTERVAL_S
        try:
            self._database_offset = clock_offset(self._database, self._clock)
        except DatabaseUnavailable:
            self._database_due_at = now
            raise
        self._check("the database server's", self._database_offset)

    def status(self) -> ClockStatus:
        """Return the best estimate of both offsets."""
        return ClockStatus(
            ahead_of_exchange_s=_middle_s(self._exchange_offset()),
            ahead_of_database_s=_middle_s(self._database_offset),
        )

    def problems(self) -> list[str]:
        """Return a clause for each clock with a large offset."""
        pairs = (("the exchange's", self._exchange_offset()), ("the database server's", self._database_offset))
        return [offset.describe(other_clock) for other_clock, offset in pairs if offset is not None and offset.is_large]

    def _check(self, other_clock: str, offset: Offset | None) -> None:
        if offset is None or offset.is_large == (other_clock in self._large):
            return
        if offset.is_large:
            self._large.add(other_clock)
            self._on_alarm(ALARM, offset.describe(other_clock))
            _log.warning(
                ALARM,
                gatherer=self._name,
                detail=offset.describe(other_clock),
                consequence="receive times are wrong by as much",
            )
        else:
            self._large.discard(other_clock)
            _log.info("clocks_agree_again", gatherer=self._name, detail=offset.describe(other_clock))


def _middle_s(offset: Offset | None) -> float | None:
    return None if offset is None else round(offset.middle_s, 3)
