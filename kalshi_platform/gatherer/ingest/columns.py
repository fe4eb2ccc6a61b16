"""Records → one Arrow table per stream table, in the column order of `sql/`, without `batch_no`.

The number of a batch is known only inside its transaction; `with_batch_no` adds it there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from kalshi_platform.market.identity import fingerprint
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    DeadLetter,
    LifecycleEvent,
    Record,
    StreamRow,
    TickerUpdate,
    Trade,
)
from kalshi_platform.market.times import US_PER_HOUR
from kalshi_platform.storage.tables import GATHERER_TABLES

Columns: TypeAlias = dict[str, list[Any]]

TABLE_OF: Mapping[type[Any], str] = {
    BookDelta: "orderbook_deltas",
    Trade: "trades",
    TickerUpdate: "tickers",
    BookSnapshot: "orderbook_snapshots",
    LifecycleEvent: "market_lifecycle",
    DeadLetter: "dead_letters",
}


def rows_by_type(records: Iterable[Record]) -> dict[type[Any], list[Any]]:
    """Sort stream rows by their type, order kept; ledger entries are left out."""
    rows: dict[type[Any], list[Any]] = {kind: [] for kind in TABLE_OF}
    for record in records:
        bucket = rows.get(type(record))
        if bucket is not None:
            bucket.append(record)
    return rows


def tables_of(records: Iterable[Record]) -> dict[str, pa.Table]:
    """Return the non-empty tables that `records` fill, without `batch_no`."""
    return {
        TABLE_OF[kind]: _table(TABLE_OF[kind], _COLUMNS[kind](rows))
        for kind, rows in rows_by_type(records).items()
        if rows
    }


def with_batch_no(name: str, table: pa.Table, batch_no: int) -> pa.Table:
    """Complete a table of `tables_of` with the number of its batch."""
    numbers = pa.array([batch_no], pa.int64()).take(pa.array([0] * table.num_rows, pa.int64()))
    return table.append_column("batch_no", numbers).select(list(GATHERER_TABLES[name].columns))


def times_us(name: str, table: pa.Table) -> Sequence[int]:
    """One moment of every hour in which the table has rows, and the first and last time: first, …, last."""
    column = table.column(GATHERER_TABLES[name].time_column).cast(pa.int64())
    limits = pc.min_max(column).as_py()
    hours = pc.unique(pc.divide(column, US_PER_HOUR)).to_pylist()
    middle = sorted(hour * US_PER_HOUR for hour in hours)
    return [int(limits["min"]), *middle[1:-1], int(limits["max"])]


def _table(name: str, columns: Columns) -> pa.Table:
    schema = GATHERER_TABLES[name].schema
    fields = [field for field in schema if field.name != "batch_no"]
    return pa.Table.from_arrays(
        [pa.array(columns[field.name], field.type) for field in fields], schema=pa.schema(fields)
    )


def _deltas(rows: list[BookDelta]) -> Columns:
    return {
        "exchange_ts": [row.exchange_ts_us for row in rows],
        "ticker": [row.ticker for row in rows],
        "stream_id": [row.stream_id for row in rows],
        "seq": [row.seq for row in rows],
        "side": [row.side for row in rows],
        "price_e4": [row.price_e4 for row in rows],
        "delta_e2": [row.delta_e2 for row in rows],
        "occurrence": [row.occurrence for row in rows],
        "received_at": [row.received_at_ns // 1_000 for row in rows],
    }


def _trades(rows: list[Trade]) -> Columns:
    return {
        "exchange_ts": [row.exchange_ts_us for row in rows],
        "ticker": [row.ticker for row in rows],
        "trade_id": [row.trade_id for row in rows],
        "yes_price_e4": [row.yes_price_e4 for row in rows],
        "no_price_e4": [row.no_price_e4 for row in rows],
        "count_e2": [row.count_e2 for row in rows],
        "taker_side": [row.taker_side for row in rows],
        "is_block_trade": [row.is_block_trade for row in rows],
        "created_time": [row.created_time_us for row in rows],
        "source": [row.source for row in rows],
        "stream_id": [row.stream_id for row in rows],
        "seq": [row.seq for row in rows],
        "received_at": [row.received_at_ns // 1_000 for row in rows],
    }


_TICKER_VALUES = (
    "fingerprint",
    "price_e4",
    "yes_bid_e4",
    "yes_ask_e4",
    "yes_bid_size_e2",
    "yes_ask_size_e2",
    "last_trade_size_e2",
    "volume_e2",
    "open_interest_e2",
    "dollar_volume",
    "dollar_open_interest",
    "stream_id",
    "seq",
)


def _tickers(rows: list[TickerUpdate]) -> Columns:
    columns: Columns = {name: [getattr(row, name) for row in rows] for name in ("ticker", *_TICKER_VALUES)}
    columns["exchange_ts"] = [row.exchange_ts_us for row in rows]
    columns["received_at"] = [row.received_at_ns // 1_000 for row in rows]
    return columns


def _snapshots(rows: list[BookSnapshot]) -> Columns:
    return {
        "snapshot_ts": [row.snapshot_ts_us for row in rows],
        "ticker": [row.ticker for row in rows],
        "source": [row.source for row in rows],
        "stream_id": [row.stream_id for row in rows],
        "seq": [row.seq for row in rows],
        "yes_price_e4": [[price for price, _ in row.yes] for row in rows],
        "yes_count_e2": [[count for _, count in row.yes] for row in rows],
        "no_price_e4": [[price for price, _ in row.no] for row in rows],
        "no_count_e2": [[count for _, count in row.no] for row in rows],
        "requested_at": [None if row.requested_at_ns is None else row.requested_at_ns // 1_000 for row in rows],
        "received_at": [row.received_at_ns // 1_000 for row in rows],
    }


def _lifecycle(rows: list[LifecycleEvent]) -> Columns:
    return {
        "received_at": [row.received_at_ns // 1_000 for row in rows],
        "ticker": [row.ticker for row in rows],
        "stream_id": [row.stream_id for row in rows],
        "seq": [row.seq for row in rows],
        "event_type": [row.event_type for row in rows],
        "exchange_ts": [row.exchange_ts_us for row in rows],
        "fingerprint": [row.fingerprint for row in rows],
        "content": [row.content for row in rows],
    }


def _dead_letters(rows: list[DeadLetter]) -> Columns:
    return {
        "received_at": [row.received_at_ns // 1_000 for row in rows],
        "stream_id": [row.stream_id for row in rows],
        "seq": [row.seq for row in rows],
        "channel": [row.channel for row in rows],
        "ticker": [row.ticker for row in rows],
        "reason": [row.reason for row in rows],
        "detail": [row.detail for row in rows],
        "payload": [row.payload for row in rows],
        "fingerprint": [_letter_fingerprint(row) for row in rows],
    }


def _letter_fingerprint(row: DeadLetter) -> int:
    hashed = hashlib.blake2b(row.payload, digest_size=16).hexdigest()
    return fingerprint(row.received_at_ns, row.stream_id, row.seq, row.reason, row.channel, row.ticker, hashed)


_COLUMNS: Mapping[type[StreamRow], Callable[[list[Any]], Columns]] = {
    BookDelta: _deltas,
    Trade: _trades,
    TickerUpdate: _tickers,
    BookSnapshot: _snapshots,
    LifecycleEvent: _lifecycle,
    DeadLetter: _dead_letters,
}
