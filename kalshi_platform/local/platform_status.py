"""Collects the status of a platform: which services live, how far behind the merge is, what production holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.close import hour_summary
from kalshi_platform.deduplicator.live.status import SERVICE, DeduplicatorStatus
from kalshi_platform.deduplicator.merge.source_identity import find_shared_databases
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.local.status_lines import gatherer_lines, wrong_lines
from kalshi_platform.market.parts import MarketPart, list_missing_parts
from kalshi_platform.monitoring.heartbeat import FILE_NAME, Heartbeat, decode_details, read_file
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import read_heartbeat

_Status = TypeVar("_Status", bound=GathererStatus | DeduplicatorStatus)
_SQL = queries.load(Path(__file__).with_name("queries.sql"))

ALIVE_S = 45.0
"""A service whose last heartbeat is younger lives; heartbeats come every 5 s."""
FUTURE_TOLERANCE_S = 2.0
"""A heartbeat dated further ahead than this is none."""


@dataclass(frozen=True, kw_only=True)
class ServiceLife:
    """A service by its last heartbeat, whose age is by the clock that dated it; `lines` describe it for people.

    `age_s`: None where there is no heartbeat.
    """

    alive: bool
    age_s: float | None
    state: str
    pid: int | None
    details: GathererStatus | DeduplicatorStatus
    lines: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ClosedHour:
    """An hour as its close left it. `coverage_share`: 0 … 1, None where no market was recorded."""

    hour: datetime
    coverage_share: float | None
    books_proved: int
    books_unproved: int
    books_failed: int
    alarms: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PlatformStatus:
    """What runs and what production holds.

    `problems`: gatherers that have one database, markets that no gatherer records. `batches_behind`: by gatherer; None
    where its database is away. `production_rows`: by table. `last_closed_hour`: None before the first, or while
    production is away.
    """

    services: dict[str, ServiceLife]
    problems: Sequence[str]
    batches_behind: dict[str, int | None]
    production_rows: dict[str, int]
    last_closed_hour: ClosedHour | None


def platform_status(settings: DeduplicatorSettings, state_dir: Path, clock: Clock) -> PlatformStatus:
    """Read heartbeats, cursors and closes.

    The clock that dated a heartbeat gives its age: the database's for a row, this host's for a file.
    A database that is away is shown as such; a gatherer whose database is away lives while its heartbeat file is fresh.
    """
    production = Database(settings.production_url, name="production", pool_size=1)
    services: dict[str, ServiceLife] = {}
    behind: dict[str, int | None] = {}
    try:
        merged = dict(_read_rows(production, _SQL["merge_cursors"]))
        for source in settings.sources:
            timeseries = Database(source.timeseries_url, name=f"{source.name} timeseries", pool_size=1)
            try:
                service = f"gatherer/{source.name}"
                file = read_file(state_dir / source.name / FILE_NAME, GathererStatus)
                services[service] = _service_life(timeseries, service, GathererStatus, file, clock)
                last = _read_rows(timeseries, _SQL["last_batch"])
                behind[source.name] = int(last[0][0]) - int(merged.get(source.name, 0)) if last else None
            finally:
                timeseries.dispose()
        services[SERVICE] = _service_life(production, SERVICE, DeduplicatorStatus, None, clock)
        rows = dict(_read_rows(production, _SQL["merged_rows"]))
        closed = _last_closed_hour(production)
    finally:
        production.dispose()
    return PlatformStatus(
        services=services,
        problems=[*find_shared_databases(settings.sources, clock), *_missing_shards(services)],
        batches_behind=behind,
        production_rows=rows,
        last_closed_hour=closed,
    )


def _missing_shards(services: Mapping[str, ServiceLife]) -> list[str]:
    """Name the parts of the markets that are no gatherer's; nothing while one has never reported which it has."""
    shards = []
    for service in services.values():
        if isinstance(service.details, GathererStatus):
            if service.age_s is None:
                return []
            shards.append(MarketPart.parse(service.details.market_shard))
    return [
        f"no gatherer records the markets of shard {part}: set KALSHI_<NAME>_MARKET_SHARD of one to it"
        for part in list_missing_parts(shards)
    ]


def _last_closed_hour(production: Database) -> ClosedHour | None:
    try:
        hour = hour_summary.read_last_closed_hour(production)
        if hour is None:
            return None
        proofs = hour_summary.read_proofs(production, [hour])
        return ClosedHour(
            hour=hour,
            coverage_share=hour_summary.read_coverage(production, [hour]).share,
            books_proved=proofs.proved,
            books_unproved=proofs.unproved,
            books_failed=proofs.failed,
            alarms=[
                f"{each.kind}: {each.subject}: {each.detail}" for each in hour_summary.read_alarms(production, [hour])
            ],
        )
    except DatabaseUnavailable:
        return None


def _service_life(
    database: Database, service: str, kind: type[_Status], file: Heartbeat[_Status] | None, clock: Clock
) -> ServiceLife:
    age_s: float | None = None
    pid: int | None = None
    status = kind()
    try:
        with database.transaction() as transaction:
            row = read_heartbeat(transaction, service)
    except DatabaseUnavailable:
        state = "database away"
    else:
        state = "unknown"
        if row is not None:
            age_s, state, pid, status = row.age_s, row.state, row.pid, decode_details(row.details, kind)
    notes: list[str] = []
    if age_s is not None and age_s < -FUTURE_TOLERANCE_S:
        notes.append(f"! its last heartbeat is dated {-age_s:.0f} s in the future: a clock was set; it counts as none")
        age_s = None
    if file is not None:
        # The file lies on this host: this clock dated it.
        file_age_s = (clock.now() - file.at).total_seconds()
        if file_age_s >= -FUTURE_TOLERANCE_S and (age_s is None or file_age_s < age_s):
            age_s, state, pid, status = file_age_s, file.state, file.pid, file.details
    age_s = None if age_s is None else max(0.0, age_s)
    return ServiceLife(
        alive=age_s is not None and age_s < ALIVE_S and state != "stopped",
        age_s=age_s,
        state=state,
        pid=pid,
        details=status,
        lines=[*notes, *(gatherer_lines(status) if isinstance(status, GathererStatus) else wrong_lines(status))],
    )


def _read_rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    """Return the rows; none while the database is away."""
    try:
        with database.transaction() as transaction:
            return transaction.fetch_all(query)
    except DatabaseUnavailable:
        return []
