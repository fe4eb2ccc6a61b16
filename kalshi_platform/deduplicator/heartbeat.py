"""The deduplicator's line in production's `heartbeats`, and its off switch in `desired_services`."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError
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
            write(self._database, self._clock.now(), self._started_at, self._run_id, state, details)
        except KalshiPlatformError as error:
            _log.debug("no heartbeat: %s", error)

    def _run(self) -> None:
        while True:
            self.beat()
            if self._clock.wait(self._stop, self._interval_s):
                return


def write(
    database: Database, at: datetime, started_at: datetime, run_id: str | None, state: str, details: Mapping[str, Any]
) -> None:
    """Write one line."""
    with database.transaction() as transaction:
        transaction.execute(
            "INSERT INTO heartbeats (service, at, started_at, host, pid, run_id, state, details)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (service) DO UPDATE SET at = excluded.at,"
            " started_at = excluded.started_at, host = excluded.host, pid = excluded.pid, run_id = excluded.run_id,"
            " state = excluded.state, details = excluded.details",
            (SERVICE, at, started_at, socket.gethostname(), os.getpid(), run_id, state, json.dumps(details)),
        )


def switched_off(database: Database) -> str | None:
    """The reason why the deduplicator should not run; None while it should."""
    with database.transaction() as transaction:
        row = transaction.fetch_one(
            "SELECT reason FROM desired_services WHERE service = %s AND NOT running", (SERVICE,)
        )
    return None if row is None else (str(row[0]) or "no reason given")
