"""Looks at every configured database: reachable, migrated, writable, how full, and by which clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kalshi_platform import config
from kalshi_platform.cli.doctor.findings import Finding, finding_of_problem
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.config import ConfiguredDatabase
from kalshi_platform.errors import ConfigurationError, KalshiPlatformError, SchemaMismatch
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.services import clock_offset, read_switch

_SQL = load(Path(__file__).with_name("queries.sql"))
_MIB = 1024 * 1024
_FULL_SHARE = 0.8
_FEWEST_LOCKS = 64
_REACH = "start the server, or correct the address, login or network; kalshi-platform up makes databases of its own"


def check_database(target: ConfiguredDatabase) -> Iterator[Finding]:
    """Look at one database. An error becomes its finding."""
    database = Database(target.url, name=target.name, pool_size=1, statement_timeout_s=10)
    try:
        yield from _check(database, target)
    except SchemaMismatch as error:
        yield finding_of_problem(target.name, str(error).replace("; run: ", ": run: "))
    except KalshiPlatformError as error:
        yield Finding(target.name, "fail", str(error), _REACH)
    finally:
        database.dispose()


def check_shared_databases() -> Iterator[Finding]:
    """Find gatherers that have one database, which would count one observer twice."""
    from kalshi_platform.deduplicator.merge.source_identity import find_shared_databases

    try:
        sources = config.load_deduplicator().sources
    except ConfigurationError:
        return
    for problem in find_shared_databases(sources, SYSTEM_CLOCK):
        yield Finding("gatherers", "fail", problem, "give each gatherer databases of its own")


def _check(database: Database, target: ConfiguredDatabase) -> Iterator[Finding]:
    with database.transaction() as transaction:
        row = transaction.fetch_one(_SQL["server"])
    assert row is not None  # noqa: S101 - a query without FROM has one row
    version, standby, limit, in_use, locks, timescale, size = row
    mode = "" if target.kind == "dagster" else check(database, target.kind)
    parts = [f"PostgreSQL {version}", f"{size / _MIB:,.0f} MiB", f"{in_use} of {limit} connections"]
    if target.kind != "dagster":
        parts += [f"TimescaleDB {timescale}" if timescale else "native partitions"] if mode else []
        parts.append("migrated")
    yield Finding(target.name, "ok", ", ".join(parts))
    if standby:
        yield Finding(target.name, "fail", "the server only reads (a standby)", "name the primary server")
    if in_use > limit * _FULL_SHARE:
        yield Finding(
            target.name, "warn", f"{in_use} of {limit} connections are in use", "raise max_connections of the server"
        )
    if locks < _FEWEST_LOCKS:
        yield Finding(
            target.name,
            "warn",
            f"max_locks_per_transaction is {locks}",
            f"set it to {_FEWEST_LOCKS} or more: migrations take locks for every partition",
        )
    offset = clock_offset(database, SYSTEM_CLOCK)
    if offset.is_large:
        yield Finding(target.name, "warn", offset.describe("the server's"), "set the clocks right (NTP)")
    if target.service:
        yield from _check_switch(database, target.service)


def _check_switch(database: Database, service: str) -> Iterator[Finding]:
    switch = read_switch(database, service)
    if not switch.enabled:
        short = service.removeprefix("gatherer/")
        why = f" ({switch.reason})" if switch.reason else ""
        yield Finding(service, "warn", f"it is switched off{why}", f"kalshi-platform switch {short} on")
