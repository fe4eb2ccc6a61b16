"""The natural columns of each table, and how truth, production and lake are brought to them.

Nothing here uses the platform's keys, parsers or units: texts of the exchange become integers by taking the point out.
Times are microseconds; those of trades and tickers milliseconds (in microseconds), which is what the WebSocket sends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

REQUIRED = "required"
AT = "at_us"
"""When a row of the truth was published, by the exchange's clock, in microseconds."""
COMBO_PREFIX = "KXMVE"
"""Multivariate combos are not followed by default."""


@dataclass(frozen=True)
class ComparableTable:
    """A table as the exchange's users know it.

    `is_set`: equal rows are one. `identity`: columns that name a row by themselves. `likeness`: further columns by
    which a changed row is recognised when more than one of its columns differs.
    """

    name: str
    columns: tuple[str, ...]
    is_set: bool = False
    identity: tuple[str, ...] = ()
    likeness: tuple[tuple[str, ...], ...] = ()


DELTAS = ComparableTable(
    "orderbook_deltas",
    ("exchange_us", "ticker", "side", "price_e4", "delta_e2"),
    likeness=(("exchange_us", "ticker"),),
)
TRADES = ComparableTable(
    "trades",
    ("exchange_us", "ticker", "trade_id", "yes_price_e4", "no_price_e4", "count_e2", "taker_side", "is_block_trade"),
    identity=("trade_id",),
    likeness=(("trade_id",),),
)
TICKERS = ComparableTable(
    "tickers",
    (
        "exchange_us", "ticker", "price_e4", "yes_bid_e4", "yes_ask_e4", "yes_bid_size_e2", "yes_ask_size_e2",
        "last_trade_size_e2", "volume_e2", "open_interest_e2", "dollar_volume", "dollar_open_interest",
    ),
    is_set=True,
    likeness=(("exchange_us", "ticker"),),
)  # fmt: skip
LIFECYCLE = ComparableTable(
    "market_lifecycle", ("ticker", "event_type", "content"), likeness=(("ticker", "event_type"),)
)
MARKETS = ComparableTable(
    "markets",
    ("ticker", "stage", "result", "settlement_value_e6", "open_us", "close_us"),
    identity=("ticker",),
    likeness=(("ticker",),),
)
STREAM_TABLES = (DELTAS, TRADES, TICKERS, LIFECYCLE)
TIMED_TABLES = (DELTAS, TRADES, TICKERS)
"""Those that are told, stored and compared by the exchange's time."""
TABLES = (*STREAM_TABLES, MARKETS)

_INTEGERS = frozenset(
    name for table in TABLES for name in table.columns if name.endswith(("_us", "_e2", "_e4", "_e6"))
) | {"dollar_volume", "dollar_open_interest"}


def shaped(table: ComparableTable, rows: pl.DataFrame, *extra: str) -> pl.DataFrame:
    """Select the table's columns (and `extra`), whole numbers as 64-bit integers."""
    return rows.select(
        *(
            pl.col(name).cast(pl.Int64) if name in _INTEGERS
            else pl.col(name).cast(pl.Boolean) if name == "is_block_trade"
            else pl.col(name).cast(pl.String)
            for name in table.columns
        ),
        *extra,
    )  # fmt: skip


def stored(table: ComparableTable, rows: pl.DataFrame) -> pl.DataFrame:
    """Bring rows of production, or of the lake, to the natural columns."""
    if table is MARKETS:
        rows = rows.with_columns(
            stage=stage(pl.col("status")),
            open_us=to_seconds(pl.col("open_time").dt.epoch("us")),
            close_us=to_seconds(pl.col("close_time").dt.epoch("us")),
            result=pl.col("result").fill_null(""),
        )
    elif table is LIFECYCLE:
        texts = [canonical(text) for text in rows["content"].cast(pl.String).to_list()]
        rows = rows.with_columns(pl.Series("content", texts, dtype=pl.String))
    else:
        rows = rows.with_columns(exchange_us=pl.col("exchange_ts").dt.epoch("us"))
    return shaped(table, rows)


def stage(status: pl.Expr) -> pl.Expr:
    """What is announced of a market's life. Opening and closing go by the clock, and nobody is told.

    A market that vanished was determined before; that REST knows it no more is not announced either.
    """
    known = pl.when(status == "vanished").then(pl.lit("determined")).otherwise(status)
    return pl.when(status.is_in(["initialized", "inactive", "active", "closed"])).then(pl.lit("open")).otherwise(known)


def to_seconds(us: pl.Expr) -> pl.Expr:
    """Times of markets as lifecycle events give them: whole seconds (still in µs)."""
    return us // 1_000_000 * 1_000_000


def canonical(text: str) -> str:
    """One spelling of a JSON text."""
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def ticker_columns(body: Mapping[str, Any]) -> dict[str, int | None]:
    """The columns of a published ticker's `msg`."""

    def e4(name: str) -> int | None:
        return _without_point(body.get(name), 4)

    def e2(name: str) -> int | None:
        return _without_point(body.get(name), 2)

    return {
        "price_e4": e4("price_dollars"),
        "yes_bid_e4": e4("yes_bid_dollars"),
        "yes_ask_e4": e4("yes_ask_dollars"),
        "yes_bid_size_e2": e2("yes_bid_size_fp"),
        "yes_ask_size_e2": e2("yes_ask_size_fp"),
        "last_trade_size_e2": e2("last_trade_size_fp"),
        "volume_e2": e2("volume_fp"),
        "open_interest_e2": e2("open_interest_fp"),
        "dollar_volume": body.get("dollar_volume"),
        "dollar_open_interest": body.get("dollar_open_interest"),
    }


def _without_point(text: object, decimals: int) -> int | None:
    if not isinstance(text, str) or not text:
        return None
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(decimals, "0")[:decimals])
