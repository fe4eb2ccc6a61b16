"""Tables that a gatherer fills from the WebSocket. The gather run reports their rows; no run materializes them."""

from __future__ import annotations

import dagster as dg

from kalshi_platform.orchestration.columns import column_metadata, table_comment
from kalshi_platform.orchestration.keys import OWNERS, STREAM_TABLES, WEBSOCKET, gatherer


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
