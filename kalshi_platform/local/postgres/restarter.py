"""Keeps the embedded database servers alive: one that died is started again, with backoff, until it is asked to end.

A server that finds its disk full ends, and every start fails until there is room: it comes back by itself then.
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

LOOK_EVERY_S = 0.5
_WORDS = 300
_log = event_logger(__name__)


@dataclass(slots=True)
class _Kept:
    """One server. `down_since`: by the monotonic clock; None while it runs. `error`: why its last start failed."""

    server: PostgresServer
    up_since: float
    down_since: float | None = None
    failures: int = 0
    error: str = ""


class ServerRestarter:
    """A thread for each server, so that one whose start takes long holds up no other."""

    def __init__(
        self, servers: Sequence[PostgresServer], say: Callable[[str], None], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """`say` is called from the keeper's threads."""
        self._say = say
        self._clock = clock
        self._stop = threading.Event()
        self._kept = [_Kept(server, clock.monotonic()) for server in servers]
        self._threads = [
            threading.Thread(target=self._keep, args=(kept,), name=f"keeper {kept.server.name}", daemon=True)
            for kept in self._kept
        ]

    def start(self) -> None:
        """Begin to look after servers that run."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; a start under way is waited for. The servers stay as they are."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def troubles(self) -> list[str]:
        """A clause for each server that is down."""
        now = self._clock.monotonic()
        return [
            f"database server {kept.server.name} is down for {now - kept.down_since:.0f} s"
            + (f" ({kept.error})" if kept.error else "")
            for kept in self._kept
            if kept.down_since is not None
        ]

    def _keep(self, kept: _Kept) -> None:
        while not self._clock.wait(self._stop, LOOK_EVERY_S):
            if kept.server.is_running():
                continue
            now = self._clock.monotonic()
            kept.failures = 1 if now - kept.up_since >= HEALTHY_AFTER_S else kept.failures + 1
            kept.down_since = now
            _log.info("database_server_gone", server=kept.server.name)
            self._say(f"database server {kept.server.name} is gone; it is started again")
            # At once the first time: a single death costs no waiting.
            wait_s = 0.0 if kept.failures == 1 else backoff_s(kept.failures - 1)
            while not self._clock.wait(self._stop, wait_s):
                if self._revived(kept):
                    break
                kept.failures += 1
                wait_s = backoff_s(kept.failures)

    def _revived(self, kept: _Kept) -> bool:
        try:
            kept.server.revive()
        except (KalshiPlatformError, OSError) as error:
            words = " ".join(str(error).split())[-_WORDS:]
            if words != kept.error:
                _log.info("database_server_start_failed", server=kept.server.name, error=words)
                self._say(f"database server {kept.server.name} cannot be started yet: {words}")
            kept.error = words
            return False
        now = self._clock.monotonic()
        down_s = now - (kept.down_since or now)
        _log.info("database_server_restarted", server=kept.server.name, down_s=round(down_s))
        self._say(f"database server {kept.server.name} is up again, on the same port, after {down_s:.0f} s")
        kept.up_since, kept.down_since, kept.error = now, None, ""
        return True
