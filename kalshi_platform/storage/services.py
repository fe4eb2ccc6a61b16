"""The tables by which long-running services are watched and switched: `heartbeats` and `service_switches`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.market.clock_offset import Offset, offset_of
from kalshi_platform.monitoring.heartbeat import Heartbeat, encode
from kalshi_platform.storage.nul import strip_escaped_nul
from kalshi_platform.storage.pool import Database, Transaction

_UPSERT = """
INSERT INTO heartbeats (service, at, started_at, host, pid, run_id, state, details)
VALUES (%(service)s, clock_timestamp(), %(started_at)s, %(host)s, %(pid)s, %(run_id)s, %(state)s, %(details)s::jsonb)
ON CONFLICT (service) DO UPDATE SET at = excluded.at, started_at = excluded.started_at, host = excluded.host,
  pid = excluded.pid, run_id = excluded.run_id, state = excluded.state, details = excluded.details
"""
_SELECT = """
SELECT at, extract(epoch FROM clock_timestamp() - at)::float8, state, run_id, pid, details::text
FROM heartbeats WHERE service = %(service)s
"""


@dataclass(frozen=True)
class ServiceSwitch:
    """The off switch of a service; one without a row is enabled."""

    enabled: bool = True
    reason: str = ""


@dataclass(frozen=True)
class HeartbeatRow:
    """A heartbeat as its database holds it. `at` changes with each one; `age_s` is by the database's clock, negative
    for one that is dated in the future; `details` is the JSON of the service's status."""

    at: datetime
    age_s: float
    state: str
    run_id: str | None
    pid: int | None
    details: str


def write_heartbeat(database: Database, heartbeat: Heartbeat[Any]) -> None:
    """Write the service's row, dated by the database's own clock: hosts may disagree. Raises DatabaseUnavailable."""
    with database.transaction() as transaction:
        transaction.execute(
            _UPSERT,
            {
                "service": heartbeat.service,
                "started_at": heartbeat.started_at,
                "host": heartbeat.host,
                "pid": heartbeat.pid,
                "run_id": heartbeat.run_id,
                "state": heartbeat.state,
                # The texts of errors may repeat what came over the wire.
                "details": strip_escaped_nul(encode(heartbeat.details).decode()),
            },
        )


def read_heartbeat(transaction: Transaction, service: str) -> HeartbeatRow | None:
    """Return the service's row; None before its first heartbeat. Raises DatabaseUnavailable."""
    row = transaction.fetch_one(_SELECT, {"service": service})
    return None if row is None else HeartbeatRow(*row)


def switch_of(database: Database, service: str) -> ServiceSwitch:
    """Whether the service should run, and why not. Raises DatabaseUnavailable."""
    with database.transaction() as transaction:
        row = transaction.fetch_one("SELECT enabled, reason FROM service_switches WHERE service = %s", (service,))
    return ServiceSwitch() if row is None else ServiceSwitch(bool(row[0]), str(row[1]))


def is_enabled(database: Database, service: str) -> bool:
    """Whether the service's switch is on. Raises DatabaseUnavailable."""
    return switch_of(database, service).enabled


def database_now(database: Database) -> datetime:
    """The time by the database server's clock, for comparing with times that it wrote. Raises DatabaseUnavailable."""
    with database.transaction() as transaction:
        row = transaction.fetch_one("SELECT clock_timestamp()")
    assert row is not None  # noqa: S101 - a query without FROM has one row
    moment: datetime = row[0]
    return moment


def clock_offset(database: Database, clock: Clock) -> Offset:
    """This machine's clock against the database server's. Raises DatabaseUnavailable."""
    with database.transaction() as transaction:
        asked_at_ns = clock.now_ns()
        row = transaction.fetch_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        answered_at_ns = clock.now_ns()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    return offset_of(asked_at_ns, answered_at_ns, int(row[0]) * 1_000)
