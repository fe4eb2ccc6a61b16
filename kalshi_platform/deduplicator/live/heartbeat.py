"""Writes the deduplicator's row in production's `heartbeats`, from a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.live.status import SERVICE, DeduplicatorStatus
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.heartbeat import Heartbeat
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import write_heartbeat

_log = event_logger(__name__)


class HeartbeatWriter:
    """Writes the row every `interval_s`, so that a long merge does not look like death."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        interval_s: float,
        status: Callable[[], DeduplicatorStatus],
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
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and write the last row."""
        self._stop.set()
        self._thread.join(timeout=10)
        self.write()

    def write(self) -> None:
        """Write the row now; a production database that is away is not an error of the heartbeat."""
        status = self._status()
        heartbeat = Heartbeat(SERVICE, self._clock.now(), self._started_at, status.state, status, run_id=self._run_id)
        try:
            write_heartbeat(self._database, heartbeat)
        except KalshiPlatformError as error:
            _log.debug("heartbeat_not_written", service=SERVICE, error=error)

    def _run(self) -> None:
        while True:
            self.write()
            if self._clock.wait(self._stop, self._interval_s):
                return
