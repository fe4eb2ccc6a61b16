"""The Arrow shape of every stream table, in the column order of `sql/`.

Times are `timestamp[us, UTC]`; Arrow arrays of such a column may be made straight from integers of microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")
TEXT = pa.string()
INT = pa.int32()
BIG = pa.int64()
FLAG = pa.bool_()
BYTES = pa.binary()
PRICES = pa.list_(pa.int32())
COUNTS = pa.list_(pa.int64())


@dataclass(frozen=True)
class StreamTable:
    """A time-series table: its Arrow schema, its time column, and casts for types that COPY cannot carry (jsonb)."""

    name: str
    time_column: str
    schema: pa.Schema
    casts: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.schema.names)


def _table(name: str, time_column: str, columns: Mapping[str, pa.DataType], **casts: str) -> StreamTable:
    return StreamTable(name, time_column, pa.schema(list(columns.items())), casts)


_DELTA_VALUES = {"side": TEXT, "price_e4": INT, "delta_e2": BIG, "occurrence": INT}
_TRADE_VALUES = {
    "trade_id": TEXT,
    "yes_price_e4": INT,
    "no_price_e4": INT,
    "count_e2": BIG,
    "taker_side": TEXT,
    "is_block_trade": FLAG,
    "created_time": TIME,
    "source": TEXT,
}
_TICKER_VALUES = {
    "fingerprint": BIG,
    "price_e4": INT,
    "yes_bid_e4": INT,
    "yes_ask_e4": INT,
    "yes_bid_size_e2": BIG,
    "yes_ask_size_e2": BIG,
    "last_trade_size_e2": BIG,
    "volume_e2": BIG,
    "open_interest_e2": BIG,
    "dollar_volume": BIG,
    "dollar_open_interest": BIG,
}
_LEVELS = {"yes_price_e4": PRICES, "yes_count_e2": COUNTS, "no_price_e4": PRICES, "no_count_e2": COUNTS}
_PLACE = {"stream_id": BIG, "seq": BIG}

GATHERER_TABLES: Mapping[str, StreamTable] = {
    table.name: table
    for table in (
        _table(
            "orderbook_deltas",
            "exchange_ts",
            {"exchange_ts": TIME, "ticker": TEXT, **_PLACE, **_DELTA_VALUES, "received_at": TIME, "batch_no": BIG},
        ),
        _table(
            "trades",
            "exchange_ts",
            {"exchange_ts": TIME, "ticker": TEXT, **_TRADE_VALUES, **_PLACE, "received_at": TIME, "batch_no": BIG},
        ),
        _table(
            "tickers",
            "exchange_ts",
            {"exchange_ts": TIME, "ticker": TEXT, **_TICKER_VALUES, **_PLACE, "received_at": TIME, "batch_no": BIG},
        ),
        _table(
            "orderbook_snapshots",
            "snapshot_ts",
            {
                "snapshot_ts": TIME,
                "ticker": TEXT,
                "source": TEXT,
                **_PLACE,
                **_LEVELS,
                "requested_at": TIME,
                "received_at": TIME,
                "batch_no": BIG,
            },
        ),
        _table(
            "market_lifecycle",
            "received_at",
            {
                "received_at": TIME,
                "ticker": TEXT,
                **_PLACE,
                "event_type": TEXT,
                "exchange_ts": TIME,
                "fingerprint": BIG,
                "content": TEXT,
                "batch_no": BIG,
            },
            content="jsonb",
        ),
        _table(
            "dead_letters",
            "received_at",
            {
                "received_at": TIME,
                **_PLACE,
                "channel": TEXT,
                "ticker": TEXT,
                "reason": TEXT,
                "detail": TEXT,
                "payload": BYTES,
                "batch_no": BIG,
                "fingerprint": BIG,
            },
        ),
    )
}
"""Tables of a gatherer's timeseries database."""

PRODUCTION_TABLES: Mapping[str, StreamTable] = {
    table.name: table
    for table in (
        _table(
            "orderbook_deltas",
            "exchange_ts",
            {"exchange_ts": TIME, "ticker": TEXT, **_DELTA_VALUES, "gatherer": TEXT, **_PLACE, "received_at": TIME},
        ),
        _table(
            "trades",
            "exchange_ts",
            {"exchange_ts": TIME, "ticker": TEXT, **_TRADE_VALUES, "gatherer": TEXT, **_PLACE, "received_at": TIME},
        ),
        _table(
            "tickers",
            "exchange_ts",
            {"exchange_ts": TIME, "ticker": TEXT, **_TICKER_VALUES, "gatherer": TEXT, **_PLACE, "received_at": TIME},
        ),
        _table(
            "orderbook_snapshots",
            "snapshot_ts",
            {
                "snapshot_ts": TIME,
                "ticker": TEXT,
                "source": TEXT,
                "witness": TEXT,
                **_PLACE,
                "gatherer": TEXT,
                **_LEVELS,
                "requested_at": TIME,
                "received_at": TIME,
            },
        ),
        _table(
            "market_lifecycle",
            "received_at",
            {
                "received_at": TIME,
                "ticker": TEXT,
                "fingerprint": BIG,
                "event_type": TEXT,
                "exchange_ts": TIME,
                "content": TEXT,
                "gatherer": TEXT,
                **_PLACE,
            },
            content="jsonb",
        ),
        _table(
            "book_anchors",
            "anchor_ts",
            {"anchor_ts": TIME, "ticker": TEXT, "gatherer": TEXT, **_PLACE, **_LEVELS},
        ),
    )
}
"""Tables of the production database."""

_RANGE = {"from_ts": TIME, "to_ts": TIME}
CLOSE_TABLES: Mapping[str, StreamTable] = {
    table.name: table
    for table in (
        _table(
            "stream_claims",
            "from_ts",
            {"hour": TIME, "ticker": TEXT, "gatherer": TEXT, "stream_id": BIG, **_RANGE, "rows": BIG, "content": BIG,
             "withdrawn": TEXT},
        ),
        _table(
            "coverage",
            "from_ts",
            {"ticker": TEXT, **_RANGE, "hour": TIME, "gatherers": pa.list_(TEXT), "stream_ids": COUNTS},
        ),
        _table(
            "book_proofs",
            "hour",
            {
                "hour": TIME,
                "ticker": TEXT,
                "verdict": TEXT,
                "score": pa.float64(),
                "run_checks": INT,
                "run_failures": INT,
                "anchor_checks": INT,
                "anchor_failures": INT,
                "stream_checks": INT,
                "stream_failures": INT,
                "rest_consistent": INT,
                "rest_inconsistent": INT,
                "rest_undecided": INT,
                "covered_us": BIG,
                "withdrawn_us": BIG,
                "detail": TEXT,
            },
        ),
    )
}  # fmt: skip
"""Tables of the production database that the close of an hour replaces: what is complete, and how it was proved."""

MERGED_TABLES = ("orderbook_deltas", "trades", "tickers", "orderbook_snapshots", "market_lifecycle")
"""Tables that the deduplicator carries from gatherers to production."""
