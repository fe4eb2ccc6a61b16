"""Reads and writes the tables `heartbeats` and `service_switches`, by which long-running services are supervised."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.market.clock_offset import Offset, offset_of
from kalshi_platform.monitoring.heartbeat import Heartbeat, encode
from kalshi_platform.storage.nul import strip_escaped_nul, strip_nul
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load


@dataclass(frozen=True)
class ServiceSwitch:
    """The off switch of a service; one without a row is enabled."""

    enabled: bool = True
    reason: str = ""


@dataclass(frozen=True)
class HeartbeatRow:
    """A heartbeat as its database holds it.

    `at` changes with each one; `age_s` is by the database's clock, negative for one that is dated in the future;
    `details` is the JSON of the service's status.
    """

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
            load("services")["write_heartbeat"],
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
    row = transaction.fetch_one(load("services")["heartbeat"], {"service": service})
    return None if row is None else HeartbeatRow(*row)


def read_switch(database: Database, service: str) -> ServiceSwitch:
    """Return the switch of a service. Raises DatabaseUnavailable."""
    with database.transaction() as transaction:
        row = transaction.fetch_one(load("services")["switch"], (service,))
    return ServiceSwitch() if row is None else ServiceSwitch(bool(row[0]), str(row[1]))


def write_switch(database: Database, service: str, *, enabled: bool, reason: str) -> None:
    """Switch a service on or off; it notices within seconds. Raises DatabaseUnavailable, StatementRejected."""
    with database.transaction() as transaction:
        transaction.execute(
            load("services")["write_switch"], {"service": service, "enabled": enabled, "reason": strip_nul(reason)}
        )


def is_enabled(database: Database, service: str) -> bool:
    """Return whether the service's switch is on. Raises DatabaseUnavailable."""
    return read_switch(database, service).enabled


def database_now(database: Database) -> datetime:
    """Return the time by the database server's clock, to compare with its times. Raises DatabaseUnavailable."""
    with database.transaction() as transaction:
        row = transaction.fetch_one(load("services")["server_time"])
    assert row is not None  # noqa: S101 - a query without FROM has one row
    moment: datetime = row[0]
    return moment


def clock_offset(database: Database, clock: Clock) -> Offset:
    """Measure this machine's clock against the database server's. Raises DatabaseUnavailable."""
    with database.transaction() as transaction:
        requested_at_ns = clock.now_ns()
        row = transaction.fetch_one(load("services")["server_time_us"])
        answered_at_ns = clock.now_ns()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    return offset_of(requested_at_ns, answered_at_ns, int(row[0]) * 1_000)
