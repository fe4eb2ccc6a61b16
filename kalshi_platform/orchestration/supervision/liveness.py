"""Reads switch, lock and heartbeat of many services within a deadline: a tick must not wait for a database."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.market.parts import WHOLE, MarketPart
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.heartbeat import decode_details, read_file
from kalshi_platform.orchestration.services import Service
from kalshi_platform.orchestration.supervision.age_tracker import AgeTracker
from kalshi_platform.orchestration.supervision.policy import LatestHeartbeat
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.services import HeartbeatRow, read_heartbeat

_log = event_logger(__name__)
_SQL = load(Path(__file__).with_name("queries.sql"))

DEADLINE_S = 0.6
_STOPPED = frozenset({"stopped", "switched off"})
"""States of a last heartbeat: the process has ended, or waits for the switch."""


class _Recorded(msgspec.Struct):
    """The part of a gatherer's status that supervision reads."""

    market_shard: str = str(WHOLE)


@dataclass(frozen=True)
class ProbeResult:
    """What a service's database said; `lock_held` is None when it did not answer in time.

    `enabled` is its switch, None without a row, which counts as on; `row` is its heartbeat.
    """

    lock_held: bool | None = None
    enabled: bool | None = None
    row: HeartbeatRow | None = None


class LivenessProbe:
    """Keeps connections between ticks; one read per database at a time, however long it hangs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="supervisor")
        self._databases: dict[str, Database] = {}
        self._pending: dict[tuple[str, str], Future[ProbeResult]] = {}
        self._lock = threading.Lock()

    def probe(self, services: Sequence[Service], deadline_s: float = DEADLINE_S) -> dict[str, ProbeResult]:
        """Return what is known of every service, by name, once all have answered or the deadline is over."""
        with self._lock:
            futures: dict[str, Future[ProbeResult]] = {}
            for service in services:
                key = (service.name, service.database_url)
                future = self._pending.get(key)
                if future is None or future.done():
                    future = self._pool.submit(self._read, service)
                    self._pending[key] = future
                futures[service.name] = future
        done, _ = wait(futures.values(), timeout=deadline_s)
        return {name: future.result() if future in done else ProbeResult() for name, future in futures.items()}

    def close(self) -> None:
        """Let go of threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for database in self._databases.values():
                database.dispose()

    def _read(self, service: Service) -> ProbeResult:
        try:
            with self._database(service).transaction() as transaction:
                row = transaction.fetch_one(_SQL["read_switch_and_lock"], {"service": service.name})
                beat = read_heartbeat(transaction, service.name)
        except KalshiPlatformError as error:
            # Also a database that is not migrated yet: the service itself reports that best.
            _log.info("service_not_probed", service=service.name, error=error)
            return ProbeResult()
        except Exception:  # noqa: BLE001 - whatever it is, the other services are supervised
            _log.info("service_not_probed", service=service.name, exc_info=True)
            return ProbeResult()
        assert row is not None  # noqa: S101 - a query without FROM has one row
        return ProbeResult(lock_held=bool(row[1]), enabled=row[0], row=beat)

    def _database(self, service: Service) -> Database:
        with self._lock:
            if service.database_url not in self._databases:
                self._databases[service.database_url] = Database(
                    service.database_url, name=service.name, application="kalshi-platform supervisor", pool_size=1
                )
            return self._databases[service.database_url]


def latest_heartbeat(service: Service, probed: ProbeResult, ages: AgeTracker, clock: Clock) -> LatestHeartbeat | None:
    """Return the latest heartbeat of a service, from the table or the file; one from the future is none.

    Each is as old as the one clock says that also dated it: the database's for a row, this host's for a file.
    """
    found: list[LatestHeartbeat] = []

    def add(where: str, at: datetime, dated_s: float, run_id: str | None, state: str, shard: str) -> None:
        age_s = ages.age_s(f"{where} {service.name}", at.isoformat(), dated_s)
        if age_s is not None:
            found.append(LatestHeartbeat(age_s, run_id, state in _STOPPED, state, MarketPart.parse(shard)))

    row = probed.row
    if row is not None:
        shard = decode_details(row.details, _Recorded).market_shard
        add("row", row.at, row.age_s, row.run_id, row.state, shard)
    file = None if service.heartbeat_file is None else read_file(service.heartbeat_file, _Recorded)
    if file is not None:
        age_s = (clock.now() - file.at).total_seconds()
        add("file", file.at, age_s, file.run_id, file.state, file.details.market_shard)
    return min(found, key=lambda beat: beat.age_s, default=None)


def latest_heartbeats(
    services: Sequence[Service], deadline_s: float, clock: Clock
) -> dict[str, LatestHeartbeat | None]:
    """Return the latest heartbeat of every service by one probe, by name; None: there is none."""
    probe, ages = LivenessProbe(), AgeTracker(clock)
    try:
        probed = probe.probe(services, deadline_s)
    finally:
        probe.close()
    return {service.name: latest_heartbeat(service, probed[service.name], ages, clock) for service in services}
