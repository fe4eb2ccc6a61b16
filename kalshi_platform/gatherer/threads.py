"""Runs the named threads of one service: each is restarted when it fails, all end by one event."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.monitoring.event_log import event_logger

WAIT_REPORT_S = 2.0
"""How often a stop that takes time reports what it waits for."""
_PAUSE_S = 1.0
_CONNECTION = re.compile(r"feed|books-\d+")
_log = event_logger(__name__)


class ThreadGroup:
    """Starts threads whose names begin with `owner`; `stop` ends them."""

    def __init__(self, owner: str, clock: Clock, stop: threading.Event) -> None:
        self._owner = owner
        self._clock = clock
        self._stop = stop
        self._started: list[threading.Thread] = []

    def start(self, name: str, act: Callable[[], None]) -> None:
        """Run `act` restarting in a thread of its own."""
        self._started.append(self._new(name, lambda: self.run_restarting(name, act)))

    def run_restarting(self, name: str, act: Callable[[], None]) -> None:
        """Run `act` here, again after every failure, until it returns or the end has come."""
        while not self._stop.is_set():
            try:
                act()
            except KalshiPlatformError as error:
                if not self._stop.is_set():
                    _log.warning("thread_restarted", gatherer=self._owner, thread=name, error=error)
            except Exception:  # noqa: BLE001 - no fault of one thread may silently end its work
                _log.exception("thread_failed", gatherer=self._owner, thread=name, consequence="it is restarted")
            else:
                return
            self._clock.wait(self._stop, _PAUSE_S)

    def joins(self) -> list[tuple[str, Callable[[float], bool]]]:
        """The name of each thread, and what waits for it for so many seconds and returns whether it has ended."""
        return [(f"thread {self._part(each)}", functools.partial(ended, each)) for each in self._started]

    def run_with_timeout(self, name: str, act: Callable[[], None], timeout_s: float) -> None:
        """Run `act` on a database that may give no answer at all: its thread is abandoned then."""
        thread = self._new(name, act)
        thread.join(timeout_s)
        if thread.is_alive():
            _log.warning("database_gives_no_answer", gatherer=self._owner, thread=name, waited_s=timeout_s)

    def _part(self, thread: threading.Thread) -> str:
        return thread.name.removeprefix(f"{self._owner} ")

    def _new(self, name: str, act: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=act, name=f"{self._owner} {name}", daemon=True)
        thread.start()
        return thread


def ended(thread: threading.Thread, timeout_s: float) -> bool:
    """Wait for a thread; return whether it has ended."""
    thread.join(timeout_s)
    return not thread.is_alive()


def log_fields(owner: str, thread: str) -> dict[str, str]:
    """What the name of a thread says in a log: which part of the service, and, of a connection's, which connection."""
    name, _, part = thread.partition(" ")
    if name != owner or not part:
        return {}
    return {"part": part, "connection": part} if _CONNECTION.fullmatch(part) else {"part": part}
