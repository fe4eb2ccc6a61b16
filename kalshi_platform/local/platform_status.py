"""One look at everything: which services live, how far behind the merge is, what production holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.close import hour_summary as hour_figures
from kalshi_platform.deduplicator.live.status import SERVICE, DeduplicatorStatus
from kalshi_platform.deduplicator.merge.source_identity import find_shared_databases
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.local.status_lines import gatherer_lines, wrong_lines
from kalshi_platform.monitoring.heartbeat import FILE_NAME, Heartbeat, decode_details, read_file
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import read_heartbeat

_Status = TypeVar("_Status", bound=GathererStatus | DeduplicatorStatus)

ALIVE_S = 45.0
"""A service heard of within this time lives; heartbeats come every 5 s."""
FUTURE_TOLERANCE_S = 2.0
"""A heartbeat dated further ahead than this is none."""


def platform_status(settings: DeduplicatorSettings, state_dir: Path, clock: Clock) -> dict[str, Any]:
    """Return services (alive, age_s, state, details, and lines for people), problems of the configuration (names that
    lead to one database), batches_behind per gatherer, production_rows per table, and last_closed_hour (None before
    the first).

    Ages are told by the clock that dated the heartbeat: the database's for a row, this host's for a file.
    A database that is away is shown as such; a gatherer whose database is away lives while its heartbeat file is fresh.
    """
    production = Database(settings.production_url, name="production", pool_size=1)
    services: dict[str, Any] = {}
    behind: dict[str, int | None] = {}
    try:
        cursors = _rows(production, "SELECT gatherer, batch_no FROM merge_cursors")
        for source in settings.sources:
            timeseries = Database(source.timeseries_url, name=f"{source.name} timeseries", pool_size=1)
            try:
                service = f"gatherer/{source.name}"
                file = read_file(state_dir / source.name / FILE_NAME, GathererStatus)
                services[service] = _service(timeseries, service, GathererStatus, file, clock)
                last = _rows(timeseries, "SELECT last_batch_no FROM batch_counter")
                behind[source.name] = (
                    None if not last else int(last[0][0]) - int(dict(cursors or []).get(source.name, 0))
                )
            finally:
                timeseries.dispose()
        services["deduplicator"] = _service(production, SERVICE, DeduplicatorStatus, None, clock)
        rows = _rows(
            production, "SELECT table_name, sum(rows_inserted)::bigint FROM hour_activity GROUP BY 1 ORDER BY 1"
        )
        closed = _last_closed(production)
    finally:
        production.dispose()
    return {
        "services": services,
        "problems": find_shared_databases(settings.sources, clock),
        "batches_behind": behind,
        "production_rows": dict(rows or []),
        "last_closed_hour": closed,
    }


def _last_closed(production: Database) -> dict[str, Any] | None:
    try:
        hour = hour_figures.read_last_closed_hour(production)
        if hour is None:
            return None
        proofs = hour_figures.read_proofs(production, [hour])
        alarms = hour_figures.read_alarms(production, [hour])
        return {
            "hour": hour,
            "coverage_share": hour_figures.read_coverage(production, [hour]).share,
            "books_proved": proofs.proved,
            "books_unproved": proofs.unproved,
            "books_failed": proofs.failed,
            "alarms": [f"{each.kind}: {each.subject}: {each.detail}" for each in alarms],
        }
    except DatabaseUnavailable:
        return None


def _service(
    database: Database,
    service: str,
    kind: type[_Status],
    file: Heartbeat[_Status] | None,
    clock: Clock,
) -> dict[str, Any]:
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
    alive = age_s is not None and age_s < ALIVE_S and state != "stopped"
    lines = [*notes, *(gatherer_lines(status) if isinstance(status, GathererStatus) else wrong_lines(status))]
    details = msgspec.to_builtins(status)
    return {"alive": alive, "age_s": age_s, "state": state, "pid": pid, "details": details, "lines": lines}


def _rows(database: Database, query: str, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]] | None:
    try:
        with database.transaction() as transaction:
            return transaction.fetch_all(query, params or None)
    except DatabaseUnavailable:
        return None
