"""The same log message at most so many times a minute; how often it was repeated is told at the minute's end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 60.0
_Key = tuple[str, int, str, str]


@dataclass
class _Window:
    """What happened to one message since its window began."""

    ends_at: float
    written: int = 0
    held_back: int = 0
    last: str = ""


class RepeatLimiter:
    """Decides which records are written. Thread-safe.

    The same message: the same logger, level and template, and `repeats_as` where the caller's `extra` has one: a
    template that serves several kinds of messages names the kind there.
    """

    def __init__(self, limit: int, monotonic: Callable[[], float]) -> None:
        """`limit`: times per WINDOW_S, counted from the first one."""
        self._limit = limit
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._windows: dict[_Key, _Window] = {}

    def admit(self, record: logging.LogRecord) -> bool:
        """Whether to write this record."""
        now = self._monotonic()
        key = (record.name, record.levelno, str(record.msg), str(getattr(record, "repeats_as", "")))
        with self._lock:
            window = self._windows.get(key)
            if window is None or (window.ends_at <= now and not window.held_back):
                window = self._windows[key] = _Window(now + WINDOW_S)
            if window.written < self._limit:
                window.written += 1
                return True
            window.held_back += 1
            window.last = record.getMessage()
            return False

    def due(self, *, at_once: bool = False) -> list[logging.LogRecord]:
        """Forget windows that are over (`at_once`: all); return a line for each that held something back."""
        now = self._monotonic()
        with self._lock:
            over = [key for key, window in self._windows.items() if at_once or window.ends_at <= now]
            windows = [(key, self._windows.pop(key)) for key in over]
        return [_told(key, window) for key, window in windows if window.held_back]

    def next_due_s(self) -> float | None:
        """Seconds until `due` has something to tell; None when nothing is held back."""
        with self._lock:
            ends = [window.ends_at for window in self._windows.values() if window.held_back]
        return max(0.0, min(ends) - self._monotonic()) if ends else None


def _told(key: _Key, window: _Window) -> logging.LogRecord:
    name, level, *_ = key
    text, args = "repeated %d more times, the last one: %s", (window.held_back, window.last)
    return logging.LogRecord(name, level, "", 0, text, args, None)


class RepeatHandler(logging.Handler):
    """Passes on what the limiter admits, and its lines about the rest as soon as they are due."""

    def __init__(self, target: logging.Handler, limiter: RepeatLimiter) -> None:
        super().__init__()
        self._target = target
        self._limiter = limiter
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._tell(at_once=False)
            if self._limiter.admit(record):
                self._target.handle(record)
            elif self._timer is None:
                self._start_timer()
        except Exception:  # noqa: BLE001 - a line that cannot be made must not cost its caller anything
            self.handleError(record)

    def flush(self) -> None:
        self._target.flush()

    def close(self) -> None:
        """Tell what is held back, and end. Called at the process's end by `logging`."""
        self.acquire()
        try:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._tell(at_once=True)
        finally:
            self.release()
        self._target.close()
        super().close()

    def _tell(self, *, at_once: bool) -> None:
        for line in self._limiter.due(at_once=at_once):
            self._target.handle(line)

    def _start_timer(self) -> None:
        wait_s = self._limiter.next_due_s()
        if wait_s is not None:
            self._timer = threading.Timer(wait_s + 0.1, self._on_time)
            self._timer.daemon = True
            self._timer.start()

    def _on_time(self) -> None:
        self.acquire()
        try:
            self._timer = None
            self._tell(at_once=False)
            self._start_timer()
        finally:
            self.release()
