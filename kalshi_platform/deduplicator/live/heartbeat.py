"""The deduplicator's line in production's `heartbeats`, and its off switch in `service_switches`."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.storage import services
from kalshi_platform.storage.pool import Database

SERVICE = "deduplicator"
_log = logging.getLogger(__name__)


class Heartbeat:
    """Writes the line every `interval_s` from a thread of its own, so that a long merge does not look like death."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        interval_s: float,
        status: Callable[[], tuple[str, Mapping[str, Any]]],
        run_id: str | None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._interval_s = interval_s
        self._status = status
        self._run_id = run_id
        self._started_at = clock.now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Write the last line and end."""
        self._stop.set()
        self._thread.join(timeout=10)
        self.beat()

    def beat(self) -> None:
        """Write the line now; a production database that is away is not an error of the heartbeat."""
        state, details = self._status()
        try:
            services.write_heartbeat(
                self._database,
                service=SERVICE,
                started_at=self._started_at,
                host=socket.gethostname(),
                pid=os.getpid(),
                run_id=self._run_id,
                state=state,
                details=details,
            )
        except KalshiPlatformError as error:
            _log.debug("no heartbeat: %s", error)

    def _run(self) -> None:
        while True:
            self.beat()
            if self._clock.wait(self._stop, self._interval_s):
                return


def switched_off(database: Database) -> str | None:
    """The reason why the deduplicator should not run; None while it should."""
    switch = services.switch_of(database, SERVICE)
    return None if switch.enabled else switch.reason or "no reason given"
