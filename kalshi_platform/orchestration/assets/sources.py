"""External assets: the exchange's two interfaces."""

from __future__ import annotations

import dagster as dg

from kalshi_platform.orchestration.keys import OWNERS, REST, WEBSOCKET

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
