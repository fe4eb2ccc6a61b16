"""Limits how often the same event is logged a minute; what was held back is counted and reported. No thread, no timer.

A count is reported before the next line of any kind once its minute is over, and at the latest when the handler is
closed, which `logging` does at the process's end. A process that falls silent after a burst reports it with its next
line.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from kalshi_platform.monitoring.event_log import Event

WINDOW_S = 60.0
HELD_BACK = "repeats_held_back"
"""The event that reports a count: `count`, and the `last` one as text; logger and level are those of the event."""
_Key: TypeAlias = tuple[str, int, str]
_Write: TypeAlias = Callable[[logging.LogRecord], object]


@dataclass
class _Window:
    """How often one event came since its window began."""

    ends_at: float
    written: int = 0
    held_back: int = 0
    last: str = ""


class LogRateLimit(logging.Filter):
    """Admits each event `limit` times in WINDOW_S, counted from the first one. Thread-safe; a filter of a handler.

    The same event: the same logger, level and name (for a plain message its template).
    """

    def __init__(self, limit: int, monotonic: Callable[[], float], write: _Write) -> None:
        """`write` takes the records that report counts: the `handle` of the handler that this is a filter of."""
        super().__init__()
        self._limit = limit
        self._monotonic = monotonic
        self._write = write
        self._lock = threading.Lock()
        self._windows: dict[_Key, _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write this record; reports first what is due."""
        if isinstance(record.msg, Event) and record.msg.name == HELD_BACK:
            return True
        self.report()
        return self._admit(record)

    def report(self, *, at_once: bool = False) -> None:
        """Report the counts of windows that are over (`at_once`: of all), and forget these windows."""
        now = self._monotonic()
        with self._lock:
            over = [key for key, window in self._windows.items() if at_once or window.ends_at <= now]
            windows = [(key, self._windows.pop(key)) for key in over]
        for (name, level, _), window in windows:
            if window.held_back:
                event = Event(HELD_BACK, {"count": window.held_back, "last": window.last})
                self._write(logging.LogRecord(name, level, "", 0, event, None, None))

    def _admit(self, record: logging.LogRecord) -> bool:
        name = record.msg.name if isinstance(record.msg, Event) else str(record.msg)
        key = (record.name, record.levelno, name)
        with self._lock:
            window = self._windows.setdefault(key, _Window(self._monotonic() + WINDOW_S))
            if window.written < self._limit:
                window.written += 1
                return True
            window.held_back += 1
            try:
                window.last = record.getMessage()
            except Exception:  # noqa: BLE001 - a wrong log call must not raise into its caller
                window.last = name
            return False
