"""Reports of the endless services → events on the assets that they fill."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg

from kalshi_platform.orchestration.keys import REST_SNAPSHOTS, STREAM_TABLES, gatherer, production

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.merge.merge_pass import MergeReport
    from kalshi_platform.gatherer.status.reports import BooksPolled, CatalogSynced, Report, StreamsCommitted

AssetEvent: TypeAlias = dg.AssetMaterialization | dg.AssetObservation


def gather_events(name: str, reports: Sequence[Report]) -> list[AssetEvent]:
    """Events of one gatherer's reports: every sync, the last poll of books, and each stream table once.

    A stream table that got rows is materialized; one that got none is observed.
    """
    from kalshi_platform.gatherer.status.reports import BooksPolled, CatalogSynced, StreamsCommitted

    events: list[AssetEvent] = [
        dg.AssetMaterialization(gatherer(report.what), partition=name, metadata=synced_metadata(report))
        for report in reports
        if isinstance(report, CatalogSynced)
    ]
    polls = [report for report in reports if isinstance(report, BooksPolled)]
    if polls:
        events.append(
            dg.AssetMaterialization(
                REST_SNAPSHOTS, partition=name, metadata={**polled_metadata(polls[-1]), "polls": len(polls)}
            )
        )
    streams = [report for report in reports if isinstance(report, StreamsCommitted)]
    if streams:
        events.extend(_stream_events(name, streams))
    return events


def synced_metadata(report: CatalogSynced) -> dict[str, Any]:
    """Figures of a catalog sync."""
    return {
        "scope": report.scope,
        "rows_seen": report.rows_seen,
        "rows_changed": report.rows_changed,
        "left_out": report.lacks or "nothing",
        "time_min": report.started_at.isoformat(),
        "time_max": report.finished_at.isoformat(),
    }


def polled_metadata(report: BooksPolled) -> dict[str, Any]:
    """Figures of a poll of books over REST."""
    return {
        "dagster/partition_row_count": report.stored,
        "minute": report.minute.isoformat(),
        "followed": report.subscribed,
        "asked": report.asked,
        "skipped": report.skipped,
        "failed": report.failed,
        "requests": report.requests,
        "seconds": round((report.finished_at - report.started_at).total_seconds(), 2),
    }


def _stream_events(name: str, reports: Sequence[StreamsCommitted]) -> list[AssetEvent]:
    rows = {table: sum(report.rows.get(table, 0) for report in reports) for table in STREAM_TABLES}
    last = reports[-1]
    shared: dict[str, Any] = {
        "time_min": reports[0].since.isoformat(),
        "time_max": last.until.isoformat(),
        "commits": sum(report.commits for report in reports),
        "gaps": sum(report.gaps for report in reports),
        "reconnects": sum(report.reconnects for report in reports),
        **({} if last.lag_p50_ms is None else {"lag_p50_ms": round(last.lag_p50_ms, 1)}),
        **({} if last.lag_p99_ms is None else {"lag_p99_ms": round(last.lag_p99_ms, 1)}),
    }
    return [
        dg.AssetMaterialization(gatherer(table), partition=name, metadata={"dagster/row_count": count, **shared})
        if count
        else dg.AssetObservation(gatherer(table), partition=name, metadata={"rows": 0, **shared})
        for table, count in rows.items()
    ]


def merge_events(reports: Sequence[MergeReport]) -> list[dg.AssetObservation]:
    """One observation per production table with the rows that all passes since the last one brought.

    They are observations: a partition counts as materialized when its hour is closed.
    """
    inserted: dict[str, int] = defaultdict(int)
    read: dict[str, int] = defaultdict(int)
    for report in reports:
        for table, counts in report.tables.items():
            inserted[table] += counts.inserted
            read[table] += counts.read
    if not reports:
        return []
    last = reports[-1]
    seconds = (last.finished_at - reports[0].started_at).total_seconds()
    return [
        dg.AssetObservation(
            production(table),
            metadata={
                "rows_inserted": inserted[table],
                "rows_read": read[table],
                "passes": len(reports),
                "seconds": round(seconds, 1),
                "gatherers_missed": ", ".join(last.missed) or "none",
            },
        )
        for table in sorted(read)
    ]
