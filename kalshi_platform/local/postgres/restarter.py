"""Starts embedded database servers that died again, with backoff.

A server whose disk is full ends, and every start fails until there is room: it comes back by itself then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.local.processes.process_group import HEALTHY_AFTER_S, backoff_s
from kalshi_platform.monitoring.event_log import event_logger

CHECK_EVERY_S = 0.5
_ERROR_CHARACTERS = 300
_log = event_logger(__name__)


@dataclass(slots=True)
class _Watched:
    """One server. `down_since`: by the monotonic clock; None while it runs. `error`: why its last start failed."""

    server: PostgresServer
    up_since: float
    down_since: float | None = None
    failures: int = 0
    error: str = ""


class ServerRestarter:
    """Watches servers until it is stopped, each in a thread, so that one whose start takes long holds up no other."""

    def __init__(
        self, servers: Sequence[PostgresServer], say: Callable[[str], None], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """`say` gets lines for people, from threads of this object."""
        self._say = say
        self._clock = clock
        self._stop = threading.Event()
        self._watched = [_Watched(server, clock.monotonic()) for server in servers]
        self._threads = [
            threading.Thread(target=self._watch, args=(each,), name=f"restarter {each.server.name}", daemon=True)
            for each in self._watched
        ]

    def start(self) -> None:
        """Begin to watch the servers, which run."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; a start under way is waited for. The servers stay as they are."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def problems(self) -> list[str]:
        """Return a clause for each server that is down."""
        now = self._clock.monotonic()
        return [
            f"database server {each.server.name} is down for {now - each.down_since:.0f} s"
            + (f" ({each.error})" if each.error else "")
            for each in self._watched
            if each.down_since is not None
        ]

    def _watch(self, watched: _Watched) -> None:
        name = watched.server.name
        while not self._clock.wait(self._stop, CHECK_EVERY_S):
            if watched.server.is_running():
                continue
            now = self._clock.monotonic()
            watched.failures = 1 if now - watched.up_since >= HEALTHY_AFTER_S else watched.failures + 1
            watched.down_since = now
            _log.info("database_server_gone", server=name)
            self._say(f"database server {name} is gone; it is started again")
            # At once the first time: a single death costs no waiting.
            wait_s = 0.0 if watched.failures == 1 else backoff_s(watched.failures - 1)
            while not self._clock.wait(self._stop, wait_s):
                if self._restart(watched):
                    break
                watched.failures += 1
                wait_s = backoff_s(watched.failures)

    def _restart(self, watched: _Watched) -> bool:
        name = watched.server.name
        try:
            watched.server.restart()
        except (KalshiPlatformError, OSError) as error:
            text = " ".join(str(error).split())[-_ERROR_CHARACTERS:]
            if text != watched.error:
                _log.info("database_server_start_failed", server=name, error=text)
                self._say(f"database server {name} cannot be started yet: {text}")
            watched.error = text
            return False
        now = self._clock.monotonic()
        down_s = now - (watched.down_since or now)
        _log.info("database_server_restarted", server=name, down_s=round(down_s))
        self._say(f"database server {name} is up again, on the same port, after {down_s:.0f} s")
        watched.up_since, watched.down_since, watched.error = now, None, ""
        return True
