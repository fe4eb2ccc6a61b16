"""The tables that a gatherer fills from the WebSocket. Nobody materializes them by hand: the gather run reports."""

from __future__ import annotations

import dagster as dg

from kalshi_platform.orchestration.columns import column_metadata, table_comment
from kalshi_platform.orchestration.keys import OWNERS, STREAM_TABLES, WEBSOCKET, gatherer
from kalshi_platform.orchestration.partitions import GATHERERS

STREAMS = [
    dg.AssetSpec(
        gatherer(table),
        deps=[WEBSOCKET],
        description=f"{table_comment('timeseries', table)} Reported once a minute by the gather run.",
        group_name="gatherer",
        owners=OWNERS,
        kinds={"websocket", "postgres"},
        partitions_def=GATHERERS,
        metadata=column_metadata("timeseries", table),
    )
    for table in STREAM_TABLES
]
