"""Reports of the long-running services as events on the assets that they fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from kalshi_platform.orchestration.asset_metadata import (
    merge_metadata,
    poll_metadata,
    status_metadata,
    stream_metadata,
    sync_metadata,
)
from kalshi_platform.orchestration.keys import EXCHANGE_STATUS, REST_SNAPSHOTS, STREAM_TABLES, gatherer, production

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.merge.merge_pass import MergeReport
    from kalshi_platform.gatherer.status.reports import Report, StreamsCommitted

AssetEvent: TypeAlias = dg.AssetMaterialization | dg.AssetObservation


def make_gather_events(name: str, reports: Sequence[Report]) -> list[AssetEvent]:
    """Make the events of one gatherer's reports: the exchange's status, every sync, the last poll, each stream table.

    A stream table that got rows is materialized; one that got none is observed.
    """
    from kalshi_platform.gatherer.status.reports import BooksPolled, CatalogSynced, ExchangeStatusRead, StreamsCommitted

    events: list[AssetEvent] = [
        dg.AssetMaterialization(gatherer(report.what), partition=name, metadata=sync_metadata(report))
        for report in reports
        if isinstance(report, CatalogSynced)
    ]
    events += [
        dg.AssetMaterialization(EXCHANGE_STATUS, partition=name, metadata=status_metadata(report))
        for report in reports
        if isinstance(report, ExchangeStatusRead)
    ]
    polls = [report for report in reports if isinstance(report, BooksPolled)]
    if polls:
        metadata = {**poll_metadata(polls[-1]), "polls": len(polls)}
        events.append(dg.AssetMaterialization(REST_SNAPSHOTS, partition=name, metadata=metadata))
    streams = [report for report in reports if isinstance(report, StreamsCommitted)]
    if streams:
        events.extend(_make_stream_events(name, streams))
    return events


def _make_stream_events(name: str, reports: Sequence[StreamsCommitted]) -> list[AssetEvent]:
    rows = {table: sum(report.rows.get(table, 0) for report in reports) for table in STREAM_TABLES}
    shared = stream_metadata(reports)
    return [
        dg.AssetMaterialization(gatherer(table), partition=name, metadata={"dagster/row_count": count, **shared})
        if count
        else dg.AssetObservation(gatherer(table), partition=name, metadata={"rows": 0, **shared})
        for table, count in rows.items()
    ]


def make_merge_events(reports: Sequence[MergeReport]) -> list[dg.AssetObservation]:
    """Make one observation per production table with the rows that all passes since the last one brought.

    They are observations: a partition counts as materialized when its hour is closed.
    """
    return [
        dg.AssetObservation(production(table), metadata=metadata) for table, metadata in merge_metadata(reports).items()
    ]
