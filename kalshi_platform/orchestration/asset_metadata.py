"""Metadata of materializations and observations: reports of the rooms, and row counts read from a database.

A key that starts with `dagster/` has a meaning for Dagster's pages (row counts are plotted there); the others are ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.market.tables import DATABASES
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

if TYPE_CHECKING:
    from kalshi_platform.catalog.store import SyncReport
    from kalshi_platform.deduplicator.close.close_hour import PartClose
    from kalshi_platform.deduplicator.close.close_record import HourClose
    from kalshi_platform.deduplicator.merge.merge_pass import MergeReport
    from kalshi_platform.gatherer.status.reports import BooksPolled, CatalogSynced, ExchangeStatusRead, StreamsCommitted
    from kalshi_platform.lake.lifecycle import LifecycleReport
    from kalshi_platform.lake.manifest import Manifest
    from kalshi_platform.lake.retention.report import Outcome, RetentionReport

_SQL = load(Path(__file__).with_name("queries.sql"))
_MOST_REASONS = 50


def time_span(first: datetime | None, last: datetime | None) -> dict[str, Any]:
    """Return the times of the first and last row as ISO 8601; nothing for no rows."""
    if first is None or last is None:
        return {}
    return {"time_min": first.isoformat(), "time_max": last.isoformat()}


def count_production_rows(database: Database, table: str, low: datetime, high: datetime) -> dict[str, Any]:
    """Count the rows of a production table with low <= time < high; return the count and the time span."""
    with database.transaction() as transaction:
        statement = _SQL["count_rows"].format(table=table, column=DATABASES["production"][table].time_column)
        row = transaction.fetch_one(statement, {"low": low, "high": high})
    count, first, last = row or (0, None, None)
    return {"dagster/row_count": int(count), **time_span(first, last)}


def count_catalog_rows(database: Database, table: str) -> dict[str, Any]:
    """Count the rows of a catalog table (series, events or markets)."""
    with database.transaction() as transaction:
        row = transaction.fetch_one(_SQL["count_catalog_rows"].format(table=table))
    return {"dagster/row_count": int(row[0]) if row else 0}


def count_merged_catalog_rows(database: Database, table: str) -> dict[str, Any]:
    """Count the rows of a merged catalog table, with the times of the first sight and of the newest knowledge."""
    with database.transaction() as transaction:
        row = transaction.fetch_one(_SQL["count_merged_catalog_rows"].format(table=table))
    count, first, last = row or (0, None, None)
    return {"dagster/row_count": int(count), **time_span(first, last)}


def status_metadata(report: ExchangeStatusRead) -> dict[str, Any]:
    """Describe the state of the exchange."""
    return {
        "dagster/partition_row_count": 1,
        **time_span(report.at, report.at),
        "exchange_active": report.exchange_active,
        "trading_active": report.trading_active,
        "estimated_resume": "none named" if report.estimated_resume is None else report.estimated_resume.isoformat(),
    }


def sync_metadata(report: CatalogSynced | SyncReport) -> dict[str, Any]:
    """Describe a sync of a gatherer's catalog over REST."""
    return {
        "dagster/partition_row_count": report.rows_seen,
        "scope": report.scope,
        "rows_seen": report.rows_seen,
        "rows_changed": report.rows_changed,
        "left_out": report.lacks or "nothing",
        "time_min": report.started_at.isoformat(),
        "time_max": report.finished_at.isoformat(),
    }


def poll_metadata(report: BooksPolled) -> dict[str, Any]:
    """Describe a poll of whole books over REST."""
    return {
        "dagster/partition_row_count": report.stored,
        **time_span(report.started_at, report.finished_at),
        "minute": report.minute.isoformat(),
        "followed": report.subscribed,
        "asked": report.asked,
        "skipped": report.skipped,
        "failed": report.failed,
        "requests": report.requests,
        "seconds": round((report.finished_at - report.started_at).total_seconds(), 2),
    }


def stream_metadata(reports: Sequence[StreamsCommitted]) -> dict[str, Any]:
    """Describe what a gatherer committed in one or more reports; lags are those of the last one, in milliseconds."""
    last = reports[-1]
    return {
        "time_min": reports[0].since.isoformat(),
        "time_max": last.until.isoformat(),
        "commits": sum(report.commits for report in reports),
        "gaps": sum(report.gaps for report in reports),
        "reconnects": sum(report.reconnects for report in reports),
        **({} if last.lag_p50_ms is None else {"lag_p50_ms": round(last.lag_p50_ms, 1)}),
        **({} if last.lag_p99_ms is None else {"lag_p99_ms": round(last.lag_p99_ms, 1)}),
    }


def merge_metadata(reports: Sequence[MergeReport]) -> dict[str, dict[str, Any]]:
    """Describe one or more passes of the live merge, by production table that they read."""
    inserted: dict[str, int] = defaultdict(int)
    read: dict[str, int] = defaultdict(int)
    for report in reports:
        for table, counts in report.tables.items():
            inserted[table] += counts.inserted
            read[table] += counts.read
    if not reports:
        return {}
    last = reports[-1]
    shared = {
        "passes": len(reports),
        "seconds": round((last.finished_at - reports[0].started_at).total_seconds(), 1),
        "gatherers_missed": join_names(last.missed),
    }
    return {table: {"rows_inserted": inserted[table], "rows_read": read[table], **shared} for table in sorted(read)}


def closed_hour_metadata(closed: HourClose, table: str) -> dict[str, Any]:
    """Describe how a closed hour of a production table came about."""
    return {
        "gatherers_read": join_names(closed.gatherers_read),
        "gatherers_missed": join_names(closed.gatherers_missed),
        "gatherers_incomplete": join_names(sorted(closed.gatherers_incomplete)),
        "rows_were_dropped": table in closed.dropped,
    }


def bucket_metadata(done: PartClose) -> dict[str, Any]:
    """Describe the work on one bucket of an hour, and what is still to do until the hour is closed."""
    return {
        "rows_inserted": sum(done.inserted.values()),
        "gatherers_missed": join_names(done.missed),
        "hour_is_closed": done.closed is not None,
        "buckets_to_do": join_names(str(number) for number in done.remaining),
        "buckets_to_repeat": join_names(str(number) for number in done.again),
    }


def manifest_metadata(manifest: Manifest) -> dict[str, Any]:
    """Describe an exported partition of the lake."""
    return {
        "dagster/row_count": manifest.rows,
        **time_span(manifest.time_min, manifest.time_max),
        "bytes": sum(file.bytes for file in manifest.files),
        "files": len(manifest.files),
        "state": manifest.state,
        "schema_version": manifest.schema_version,
        "sha256": ", ".join(file.sha256[:12] for file in manifest.files),
    }


def lifecycle_metadata(report: LifecycleReport) -> dict[str, Any]:
    """Describe the bucket's lifecycle rules beside those of this platform."""
    return {
        "applicable": report.applicable,
        "changed": report.changed,
        "differences": "; ".join(report.differences) or "none",
        "warnings": "; ".join(report.warnings) or "none",
        "note": report.note or "none",
    }


def retention_metadata(report: RetentionReport) -> dict[str, Any]:
    """Describe what retention dropped, table by table, and what it refused, reason by reason."""
    first = min([each.low for each in report.gone], default=None)
    last = max([each.high for each in report.gone], default=None)
    gone: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for each in report.gone:
        gone[each.database, each.table].append(each)
    refused: dict[tuple[str, str, str], list[Outcome]] = defaultdict(list)
    for each in report.refused:
        refused[each.database, each.table, str(each.refused)].append(each)
    went = [
        f"| {database} | {table} | {len(some)} | {sum(each.rows for each in some):,}"
        f" | {sum(each.bytes for each in some):,} |"
        for (database, table), some in gone.items()
    ]
    stays = [
        f"| {database} | {table} | {min(some).low:%Y-%m-%dT%H} | {len(some)} | {reason} |"
        for (database, table, reason), some in list(refused.items())[:_MOST_REASONS]
    ]
    return {
        **time_span(first, last),
        "partitions_dropped": len(report.gone),
        "rows_dropped": sum(each.rows for each in report.gone),
        "bytes_dropped": sum(each.bytes for each in report.gone),
        "partitions_refused": len(report.refused),
        "ledger_lines_cleared": sum(each.rows for each in report.cleared),
        "unreachable": "; ".join(f"{name}: {why}" for name, why in report.unreachable.items()) or "none",
        "went": dg.MetadataValue.md(
            "\n".join(["| database | table | partitions | rows | bytes |", "|---|---|---|---|---|", *went])
        ),
        "stays": dg.MetadataValue.md(
            "\n".join(["| database | table | first | partitions | why |", "|---|---|---|---|---|", *stays])
        ),
    }


def join_names(names: Iterable[str]) -> str:
    """Join names for a metadata value; `none` for no names."""
    return ", ".join(names) or "none"
