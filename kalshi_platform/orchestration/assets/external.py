"""External assets, which no run materializes: the exchange's two interfaces, and the tables that a gatherer fills.

Rows of those tables come from the WebSocket; the gather run reports them.
"""

from __future__ import annotations

import dagster as dg

from kalshi_platform.orchestration.columns import column_metadata, table_comment
from kalshi_platform.orchestration.keys import OWNERS, REST, STREAM_TABLES, WEBSOCKET, gatherer

SOURCES = [
    dg.AssetSpec(
        REST,
        description="Kalshi's REST interface: exchange status, series, events, markets, trades, and whole order books.",
        group_name="kalshi",
        owners=OWNERS,
        kinds={"rest"},
    ),
    dg.AssetSpec(
        WEBSOCKET,
        description=(
            "Kalshi's WebSocket: order-book snapshots and deltas, trades, tickers, market lifecycle. "
            "A delta is published once; one that was not recorded is gone."
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
