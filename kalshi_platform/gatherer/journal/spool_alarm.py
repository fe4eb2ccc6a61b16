"""Reports how full the spool is, once per level."""

from __future__ import annotations

from collections.abc import Callable

from kalshi_platform.gatherer.journal.spool import Spool
from kalshi_platform.monitoring.event_log import event_logger

LEVELS = (0.5, 0.8, 0.95, 1.0)
# A level is reported again only after the spool was emptier than that by so much.
_LEAVING = 0.1
_log = event_logger(__name__)


class SpoolAlarm:
    """Logs each level when it is reached. One thread at a time."""

    def __init__(self, name: str, spool: Spool, on_level: Callable[[], None]) -> None:
        """`on_level()` counts."""
        self._name = name
        self._spool = spool
        self._on_level = on_level
        self._reached = 0

    def check_usage(self, refused: str | None) -> None:
        """Compare the fill with the levels. A spool that has just `refused` records, and why, counts as full."""
        fill = self._spool.fill()
        share = 1.0 if refused is not None else fill.share if fill.used else 0.0
        reached = sum(share >= level for level in LEVELS)
        if reached > self._reached:
            self._reached = reached
            self._on_level()
            if refused is not None:
                _log.critical("spool_unwritable", gatherer=self._name, error=refused, consequence="only memory is left")
            else:
                _log.error(
                    "spool_filling",
                    gatherer=self._name,
                    percent=round(100 * LEVELS[reached - 1]),
                    used_bytes=fill.used,
                    capacity_bytes=fill.capacity,
                    consequence="records are lost when it is full before the database is back",
                )
        while self._reached and share < LEVELS[self._reached - 1] - _LEAVING:
            self._reached -= 1
