"""What each data set of the lake holds: Arrow schema with units, sort order, version.

Raw tables are the production tables column by column, in exact scaled integers. Processed and aggregated data sets are
in dollars and contracts as exact decimals. Every field carries `unit` and `description` as metadata, in the files too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import pyarrow as pa

from kalshi_platform.lake.layout import RAW_TABLES, LakeTable
from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.storage.arrow import ARROW_TYPES

DOLLARS = pa.decimal128(9, 4)
CONTRACTS = pa.decimal128(18, 2)


@dataclass(frozen=True)
class Dataset:
    """One data set. No two rows have the same `identity`; rows are sorted by `order`; texts of `plain` hardly repeat.

    Rows of one market and moment stand in the order in which they happened, as far as it is known.

    `former_columns`: versions that can still be read → their names of columns → today's.
    `rows_per_group` bounds the memory of an export; rows that hold whole books or messages are far bigger than others.
    """

    key: str
    version: int
    schema: pa.Schema
    time_column: str
    identity: tuple[str, ...]
    order: tuple[str, ...]
    plain: frozenset[str] = frozenset()
    rows_per_group: int = 256 * 1024
    former_columns: Mapping[int, Mapping[str, str]] = field(default_factory=dict)

    def columns_of(self, version: int) -> Mapping[str, str] | None:
        """Today's names of the columns that another version called otherwise; None for a version that nobody knows."""
        return {} if version == self.version else self.former_columns.get(version)


def dataset(table: LakeTable) -> Dataset:
    """The data set of a table of the lake."""
    return DATASETS[table.key]


_TIME = "microseconds, UTC"
TEXT, TIME, BIG, FLAG = (ARROW_TYPES[each] for each in ("text", "timestamptz", "bigint", "boolean"))

_IDENTITY: Mapping[str, tuple[str, ...]] = {
    "orderbook_deltas": ("ticker", "exchange_ts", "side", "price_e4", "delta_e2", "occurrence"),
    "trades": ("ticker", "exchange_ts", "trade_id"),
    "tickers": ("ticker", "exchange_ts", "fingerprint"),
    "orderbook_snapshots": ("ticker", "snapshot_ts", "source", "source_gatherer", "stream_id", "seq"),
    "market_lifecycle": ("ticker", "received_at", "fingerprint"),
    "book_checkpoints": ("ticker", "checkpoint_ts", "gatherer", "stream_id", "seq"),
}
_IN_STREAM = ("gatherer", "stream_id", "seq")
# Deltas of one moment apply together, so that their order says nothing.
_ORDER: Mapping[str, tuple[str, ...]] = {
    "trades": ("ticker", "exchange_ts", "created_time", *_IN_STREAM, "trade_id"),
    "tickers": ("ticker", "exchange_ts", *_IN_STREAM, "fingerprint"),
    "market_lifecycle": ("ticker", "received_at", *_IN_STREAM, "fingerprint"),
}
_PLAIN = frozenset({"trade_id", "content"})
_FORMER_COLUMNS: Mapping[str, Mapping[int, Mapping[str, str]]] = {
    "orderbook_snapshots": {1: {"witness": "source_gatherer"}},
    "book_checkpoints": {1: {"anchor_ts": "checkpoint_ts"}},
}
_ROWS_PER_GROUP: Mapping[str, int] = {
    "orderbook_snapshots": 16 * 1024,
    "book_checkpoints": 16 * 1024,
    "market_lifecycle": 32 * 1024,
}


def _field(name: str, kind: pa.DataType, unit: str, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "description": description})


def _schema(key: str, version: int, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"kalshi.dataset": key, "kalshi.schema_version": str(version)})


def _raw(name: str) -> Dataset:
    table = PRODUCTION_TABLES[name]
    former = _FORMER_COLUMNS.get(name, {})
    version = max(former, default=0) + 1
    fields = [
        _field(column.name, ARROW_TYPES[column.type], column.unit, column.meaning, nullable=column.nullable)
        for column in table.written
    ]
    key = f"raw/{name}"
    return Dataset(
        key,
        version,
        _schema(key, version, fields),
        table.time_column,
        _IDENTITY[name],
        _ORDER.get(name, _IDENTITY[name]),
        _PLAIN & set(table.names),
        _ROWS_PER_GROUP.get(name, Dataset.rows_per_group),
        former,
    )


def _trades() -> Dataset:
    key, version = "processed/trades", 1
    fields = [
        _field("ticker", TEXT, "", "market ticker"),
        _field("exchange_ts", TIME, _TIME, "Kalshi's time of the trade, floored to the millisecond"),
        _field("trade_id", TEXT, "", "Kalshi's identifier of the trade"),
        _field("yes_price_dollars", DOLLARS, "dollars", "price of the yes contract"),
        _field("no_price_dollars", DOLLARS, "dollars", "price of the no contract"),
        _field("count_contracts", CONTRACTS, "contracts", "contracts traded"),
        _field("taker_side", TEXT, "", "outcome that the taker bought, where Kalshi says it", nullable=True),
        _field("is_block_trade", FLAG, "", "negotiated off the book"),
        _field("created_time", TIME, _TIME, "Kalshi's time of the trade to the microsecond, from REST", nullable=True),
        _field("source", TEXT, "", "ws, or rest for a trade that the stream missed"),
    ]
    names, order = ("ticker", "exchange_ts", "trade_id"), ("ticker", "exchange_ts", "created_time")
    return Dataset(key, version, _schema(key, version, fields), "exchange_ts", names, order, frozenset({"trade_id"}))


def _candles() -> Dataset:
    key, version = "aggregates/candles_1m", 1
    prices = [
        _field(f"{name}_dollars", DOLLARS, "dollars", f"{text} yes price, without block trades", nullable=True)
        for name, text in (("open", "first"), ("high", "highest"), ("low", "lowest"), ("close", "last"))
    ]
    fields = [
        _field("ticker", TEXT, "", "market ticker"),
        _field("minute", TIME, _TIME, "start of the minute; minutes without a trade have no row"),
        *prices,
        _field("volume_contracts", CONTRACTS, "contracts", "contracts traded, without block trades"),
        _field("trades", BIG, "", "trades, without block trades"),
        _field("block_volume_contracts", CONTRACTS, "contracts", "contracts in block trades"),
        _field("block_trades", BIG, "", "block trades"),
    ]
    names = ("ticker", "minute")
    return Dataset(key, version, _schema(key, version, fields), "minute", names, names)


DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {data.key: data for data in (*(_raw(name) for name in RAW_TABLES), _trades(), _candles())}
)
