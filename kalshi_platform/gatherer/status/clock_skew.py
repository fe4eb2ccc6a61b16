"""This machine's clock against the exchange's and the database server's; told when they are too far apart."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import clock_offset

ALARM = "clock_offset"
_ASK_DATABASE_S = 60.0
_log = logging.getLogger(__name__)


class Clocks:
    """Each pair of clocks is told once when it comes apart, and once when it agrees again."""

    def __init__(
        self,
        name: str,
        database: Database,
        clock: Clock,
        exchange_offset: Callable[[], Offset | None],
        on_alarm: Callable[[str], None],
    ) -> None:
        """`exchange_offset`: what the exchange's answers say; `on_alarm(kind)` counts."""
        self._name = name
        self._database = database
        self._clock = clock
        self._exchange_offset = exchange_offset
        self._on_alarm = on_alarm
        self._database_offset: Offset | None = None
        self._ask_at = clock.monotonic()
        self._large: set[str] = set()

    def look(self) -> None:
        """Compare with the exchange's answers so far. From one thread, often."""
        self._judge("the exchange's", self._exchange_offset())

    def ask_database(self) -> None:
        """Compare with the database server, once a minute. From one thread. Raises DatabaseUnavailable."""
        now = self._clock.monotonic()
        if now < self._ask_at:
            return
        self._ask_at = now + _ASK_DATABASE_S
        try:
            self._database_offset = clock_offset(self._database, self._clock)
        except DatabaseUnavailable:
            self._ask_at = now
            raise
        self._judge("the database server's", self._database_offset)

    def figures(self) -> dict[str, float | None]:
        """Seconds by which this machine's clock is ahead (negative: behind) of the others; None: not known."""
        return {
            "ahead_of_exchange_s": _rounded(self._exchange_offset()),
            "ahead_of_database_s": _rounded(self._database_offset),
        }

    def problems(self) -> list[str]:
        """A clause for each clock that is too far away."""
        pairs = (("the exchange's", self._exchange_offset()), ("the database server's", self._database_offset))
        return [offset.told(whose) for whose, offset in pairs if offset is not None and offset.is_large]

    def _judge(self, whose: str, offset: Offset | None) -> None:
        if offset is None or offset.is_large == (whose in self._large):
            return
        if offset.is_large:
            self._large.add(whose)
            self._on_alarm(ALARM)
            _log.warning("%s: %s; receive times are wrong by as much", self._name, offset.told(whose))
        else:
            self._large.discard(whose)
            _log.info("%s: %s again", self._name, offset.told(whose))


def _rounded(offset: Offset | None) -> float | None:
    return None if offset is None else round(offset.middle_s, 3)
