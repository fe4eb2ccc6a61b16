"""External assets, which no run materializes: the exchange's two interfaces, and the tables that a gatherer fills.

Rows of those tables come from the WebSocket; the gather run reports them. What the interfaces brought in an hour is
reported by its close, for all gatherers together.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform.orchestration.asset_metadata import time_span
from kalshi_platform.orchestration.asset_plots import plot_traffic
from kalshi_platform.orchestration.columns import column_metadata, table_comment
from kalshi_platform.orchestration.keys import OWNERS, REST, STREAM_TABLES, WEBSOCKET, gatherer

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.close.hour_traffic import HourTraffic

SOURCES = [
    dg.AssetSpec(
        REST,
        description=(
            "Kalshi's REST interface: exchange status, series, events, markets, trades, and whole order books. "
            "Each close of an hour reports the books that gatherers polled in it."
        ),
        group_name="kalshi",
        owners=OWNERS,
        kinds={"rest"},
    ),
    dg.AssetSpec(
        WEBSOCKET,
        description=(
            "Kalshi's WebSocket: order-book snapshots and deltas, trades, tickers, market lifecycle. "
            "A delta is published once; one that was not recorded is gone. Each close of an hour reports what gatherers"
            " received in it: messages and lag by gatherer and minute."
        ),
        group_name="kalshi",
        owners=OWNERS,
        kinds={"websocket"},
    ),
]


def make_stream_assets(gatherers: dg.StaticPartitionsDefinition) -> list[dg.AssetSpec]:
    """Make one external asset per stream table, with a partition per gatherer."""
    return [
        dg.AssetSpec(
            gatherer(table),
            deps=[WEBSOCKET],
            description=f"{table_comment('timeseries', table)} Reported once a minute by the gather run.",
            group_name="gatherer",
            owners=OWNERS,
            kinds={"websocket", "postgres"},
            partitions_def=gatherers,
            metadata=column_metadata("timeseries", table),
        )
        for table in STREAM_TABLES
    ]


def make_source_events(hour: datetime, traffic: Mapping[str, HourTraffic]) -> list[dg.AssetMaterialization]:
    """Make the events of the exchange's interfaces for an hour: what came over each, of all gatherers that answered."""
    polled_from = [each.polled_from for each in traffic.values() if each.polled_from]
    polled_until = [each.polled_until for each in traffic.values() if each.polled_until]
    first = [each.first_at for each in traffic.values() if each.first_at]
    last = [each.last_at for each in traffic.values() if each.last_at]
    return [
        dg.AssetMaterialization(
            WEBSOCKET,
            metadata={
                "dagster/row_count": sum(each.messages for each in traffic.values()),
                **time_span(min(first, default=None), max(last, default=None)),
                **{f"messages {name}": each.messages for name, each in traffic.items()},
                **plot_traffic(hour, traffic),
            },
        ),
        dg.AssetMaterialization(
            REST,
            metadata={
                "dagster/row_count": sum(each.books_answered for each in traffic.values()),
                **time_span(min(polled_from, default=None), max(polled_until, default=None)),
                "polls": sum(each.polls for each in traffic.values()),
                "requests": sum(each.requests for each in traffic.values()),
            },
        ),
    ]
