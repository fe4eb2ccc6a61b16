"""Off switch and signs of life of many services at once, within a deadline: a tick must not wait for a database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.monitoring.heartbeat import NoDetails, read_file
from kalshi_platform.orchestration.services import Service
from kalshi_platform.orchestration.supervision.decision import Heartbeat
from kalshi_platform.orchestration.supervision.sightings import Sightings
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import read_heartbeat

log = logging.getLogger(__name__)

DEADLINE_S = 0.6
_STOPPED = frozenset({"stopped", "switched off"})
"""States of a last heartbeat: nobody is there any more."""


@dataclass(frozen=True)
class Sign:
    """A sign of life as it was read. `stamp` changes with every heartbeat.

    `told_s`: its age by the one clock that also stamped it (the database's for a row, this host's for a file); negative
    when it is dated in that clock's future.
    """

    stamp: str
    told_s: float
    run_id: str | None
    state: str


@dataclass(frozen=True)
class Testimony:
    """What the service's database said. `reachable` is False when it did not answer in time."""

    reachable: bool
    running_wanted: bool | None = None
    row: Sign | None = None


class Witnesses:
    """Keeps connections between ticks; one look-up per database at a time, however long it hangs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="supervisor")
        self._databases: dict[str, Database] = {}
        self._pending: dict[tuple[str, str], Future[Testimony]] = {}
        self._lock = threading.Lock()

    def ask(self, services: Sequence[Service], deadline_s: float = DEADLINE_S) -> dict[str, Testimony]:
        """Return the testimony of every service by name; those that did not answer are unreachable."""
        with self._lock:
            asked: dict[str, Future[Testimony]] = {}
            for service in services:
                key = (service.name, service.database_url)
                future = self._pending.get(key)
                if future is None or future.done():
                    future = self._pool.submit(self._look_up, service)
                    self._pending[key] = future
                asked[service.name] = future
        done, _ = wait(asked.values(), timeout=deadline_s)
        return {name: future.result() if future in done else Testimony(False) for name, future in asked.items()}

    def close(self) -> None:
        """Let go of threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for database in self._databases.values():
                database.dispose()

    def _look_up(self, service: Service) -> Testimony:
        try:
            with self._database(service).transaction() as transaction:
                wanted = transaction.fetch_one(
                    "SELECT enabled FROM service_switches WHERE service = %(service)s", {"service": service.name}
                )
                row = read_heartbeat(transaction, service.name)
        except KalshiPlatformError as error:
            log.info("%s: %s", service.name, error)
            return Testimony(False)
        except Exception:
            # A database that is not migrated yet has no such tables: the service itself reports that best.
            log.info("%s: its database gave no answer", service.name, exc_info=True)
            return Testimony(False)
        return Testimony(
            reachable=True,
            running_wanted=None if wanted is None else bool(wanted[0]),
            row=None if row is None else Sign(row.at.isoformat(), row.age_s, row.run_id, row.state),
        )

    def _database(self, service: Service) -> Database:
        with self._lock:
            if service.database_url not in self._databases:
                self._databases[service.database_url] = Database(
                    service.database_url, name=service.name, application="kalshi-platform supervisor", pool_size=1
                )
            return self._databases[service.database_url]


def sign_in_file(path: Path | None, clock: Clock) -> Sign | None:
    """The heartbeat that the service wrote to this host's disk: it counts while the database is away."""
    if path is None:
        return None
    heartbeat = read_file(path, NoDetails)
    if heartbeat is None:
        return None
    told_s = (clock.now() - heartbeat.at).total_seconds()
    return Sign(heartbeat.at.isoformat(), told_s, heartbeat.run_id, heartbeat.state)


def newest_heartbeat(service: Service, testimony: Testimony, sightings: Sightings, clock: Clock) -> Heartbeat | None:
    """The latest sign of life, from the table or the file. One from the future is none."""
    found = []
    for where, sign in (("row", testimony.row), ("file", sign_in_file(service.heartbeat_file, clock))):
        if sign is None:
            continue
        age_s = sightings.age_s(f"{where} {service.name}", sign.stamp, sign.told_s)
        if age_s is not None:
            found.append(Heartbeat(age_s, sign.run_id, sign.state in _STOPPED, sign.state))
    return min(found, key=lambda beat: beat.age_s, default=None)


def heard_of(services: Sequence[Service], deadline_s: float, clock: Clock) -> dict[str, Heartbeat | None]:
    """The newest heartbeat of every service, from its database or its file, by one look."""
    witnesses, sightings = Witnesses(), Sightings(clock)
    try:
        testimonies = witnesses.ask(services, deadline_s)
    finally:
        witnesses.close()
    return {
        service.name: newest_heartbeat(service, testimonies[service.name], sightings, clock) for service in services
    }
