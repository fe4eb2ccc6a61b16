"""The data sets of the lake: one file each, and this registry of them.

Partitions, exports, the stale check, the reader, the Dagster assets and docs/data-dictionary.md follow from the line of
a data set here (CONTRIBUTING.md shows how to add one). Raw data sets are the tables of production column by column, in
exact scaled integers; processed and aggregated ones are in dollars and contracts as exact decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kalshi_platform.lake.datasets import (
    aggregates_candles_1d,
    aggregates_candles_1h,
    aggregates_candles_1m,
    aggregates_daily_volume,
    aggregates_market_stats,
    processed_book_1m,
    processed_book_1s,
    processed_book_deltas,
    processed_coverage,
    processed_events,
    processed_lifecycle,
    processed_markets,
    processed_quotes,
    processed_series,
    processed_tickers,
    processed_trades,
    raw_book_checkpoints,
    raw_coverage,
    raw_market_lifecycle,
    raw_orderbook_deltas,
    raw_orderbook_snapshots,
    raw_tickers,
    raw_trades,
)
from kalshi_platform.lake.datasets.dataset import DAY, LAYERS, Dataset, Kind, Layer

__all__ = ["DAILY_DATASETS", "DATASETS", "DAY", "LAYERS", "RAW_TABLES", "Dataset", "Kind", "Layer"]

DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        module.DATASET.key: module.DATASET
        for module in (
            raw_orderbook_deltas,
            raw_trades,
            raw_tickers,
            raw_orderbook_snapshots,
            raw_market_lifecycle,
            raw_book_checkpoints,
            raw_coverage,
            processed_book_deltas,
            processed_quotes,
            processed_book_1s,
            processed_book_1m,
            processed_trades,
            processed_tickers,
            processed_lifecycle,
            processed_coverage,
            processed_markets,
            processed_events,
            processed_series,
            aggregates_candles_1m,
            aggregates_candles_1h,
            aggregates_candles_1d,
            aggregates_daily_volume,
            aggregates_market_stats,
        )
    }
)
RAW_TABLES = tuple(data.name for data in DATASETS.values() if data.layer == "raw")
"""Tables of production that go to the lake as they are, hour by hour."""
DAILY_DATASETS = tuple(data.key for data in DATASETS.values() if data.layer != "raw")
"""Data sets that are derived from production, or from raw hours of the lake, day by day."""
