"""How full the spool is, said once per level."""

from __future__ import annotations

import logging

from kalshi_platform.gatherer.ingest.writer_counters import WriterCounters
from kalshi_platform.gatherer.journal.spool import Spool

LEVELS = (0.5, 0.8, 0.95, 1.0)
# A level is said again only after the spool was emptier than that by so much.
_LEAVING = 0.1
_log = logging.getLogger(__name__)


class SpoolAlarm:
    """Logs and counts each level when it is reached. One thread at a time."""

    def __init__(self, name: str, spool: Spool, counters: WriterCounters) -> None:
        self._name = name
        self._spool = spool
        self._counters = counters
        self._reached = 0

    def look(self) -> None:
        """Compare the fill with the levels. A spool that has just refused records counts as full."""
        fill = self._spool.fill()
        refused = self._counters.disk_error
        share = 1.0 if refused is not None else fill.share if fill.used else 0.0
        reached = sum(share >= level for level in LEVELS)
        if reached > self._reached:
            self._reached = reached
            self._counters.spool_alarms += 1
            if refused is not None:
                _log.critical("%s: the spool takes no records: %s; memory is what is left", self._name, refused)
            else:
                _log.error(
                    "%s: the spool is %.0f %% full: %d of %d bytes; the database must come back before it is",
                    self._name, 100 * LEVELS[reached - 1], fill.used, fill.capacity,
                )  # fmt: skip
        while self._reached and share < LEVELS[self._reached - 1] - _LEAVING:
            self._reached -= 1
