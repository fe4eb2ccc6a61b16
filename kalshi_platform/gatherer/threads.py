"""Runs the named threads of one service, restarts those that fail, and ends all by one event."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.monitoring.event_log import event_logger

WAIT_REPORT_S = 2.0
"""Seconds between two reports of a stop about what it waits for."""
_PAUSE_S = 1.0
_CONNECTION = re.compile(r"feed|books-\d+")
_log = event_logger(__name__)


class ThreadGroup:
    """Starts threads whose names start with `owner`; `stop` ends them."""

    def __init__(self, owner: str, clock: Clock, stop: threading.Event) -> None:
        self._owner = owner
        self._clock = clock
        self._stop = stop
        self._started: list[threading.Thread] = []

    def start(self, name: str, act: Callable[[], None]) -> None:
        """Run `act` in its own thread, restarted after failures."""
        self._started.append(self._new(name, lambda: self.run_restarting(name, act)))

    def run_restarting(self, name: str, act: Callable[[], None]) -> None:
        """Run `act` in this thread, again after every failure, until it returns or `stop` is set."""
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
        """Return the name of each thread, and a function that waits up to so many seconds for its end."""
        return [(f"thread {self._part(each)}", functools.partial(ended, each)) for each in self._started]

    def run_with_timeout(self, name: str, act: Callable[[], None], timeout_s: float) -> None:
        """Run `act` on a database that may not answer at all; its thread is abandoned after `timeout_s`."""
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
    """Return the log fields in a thread's name: the part of the service, and the connection of a connection's."""
    name, _, part = thread.partition(" ")
    if name != owner or not part:
        return {}
    return {"part": part, "connection": part} if _CONNECTION.fullmatch(part) else {"part": part}
