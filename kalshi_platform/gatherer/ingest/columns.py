"""Converts records to one Arrow table per stream table, in the columns of `market.tables`. Pure.

A column is filled from the record's field of its name; columns without such a field are derived here. The number of a
batch is known only inside its transaction, where `with_batch_no` adds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kalshi_platform.market.identity import fingerprint
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    DeadLetter,
    LifecycleEvent,
    Record,
    TickerUpdate,
    Trade,
)
from kalshi_platform.market.tables import GATHERER_TABLES
from kalshi_platform.market.times import US_PER_HOUR
from kalshi_platform.storage.arrow import ArrowBuilder, Derived

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
    return {TABLE_OF[kind]: _BUILDERS[kind](rows) for kind, rows in rows_by_type(records).items() if rows}


def with_batch_no(name: str, table: pa.Table, batch_no: int) -> pa.Table:
    """Complete a table of `tables_of` with the number of its batch."""
    numbers = pa.array([batch_no], pa.int64()).take(pa.array([0] * table.num_rows, pa.int64()))
    return table.append_column("batch_no", numbers).select(list(GATHERER_TABLES[name].names))


def times_us(name: str, table: pa.Table) -> Sequence[int]:
    """Return the first time, one moment of every hour with rows in between, and the last time (µs)."""
    column = table.column(GATHERER_TABLES[name].time_column).cast(pa.int64())
    limits = pc.min_max(column).as_py()
    hours = pc.unique(pc.divide(column, US_PER_HOUR)).to_pylist()
    middle = sorted(hour * US_PER_HOUR for hour in hours)
    return [int(limits["min"]), *middle[1:-1], int(limits["max"])]


def _prices(levels: Sequence[tuple[int, int]]) -> list[int]:
    return [price for price, _ in levels]


def _counts(levels: Sequence[tuple[int, int]]) -> list[int]:
    return [count for _, count in levels]


def _letter_fingerprint(
    received_at_ns: int,
    stream_id: int,
    seq: int,
    reason: str,
    channel: str | None,
    ticker: str | None,
    payload: bytes,
) -> int:
    hashed = hashlib.blake2b(payload, digest_size=16).hexdigest()
    return fingerprint(received_at_ns, stream_id, seq, reason, channel, ticker, hashed)


_DERIVED: Mapping[type[Any], Derived] = {
    BookSnapshot: {
        "yes_price_e4": (("yes",), _prices),
        "yes_count_e2": (("yes",), _counts),
        "no_price_e4": (("no",), _prices),
        "no_count_e2": (("no",), _counts),
    },
    DeadLetter: {
        "fingerprint": (
            ("received_at_ns", "stream_id", "seq", "reason", "channel", "ticker", "payload"),
            _letter_fingerprint,
        ),
    },
}
_BUILDERS = {
    kind: ArrowBuilder(kind, GATHERER_TABLES[name], _DERIVED.get(kind, {}), without=("batch_no",))
    for kind, name in TABLE_OF.items()
}
