"""Rows as builders get them: a market as Enum, times in UTC, scaled integers."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

DAY_US = 86_400_000_000
BASE = 20_778 * DAY_US
"""A whole UTC day."""
TICKERS = pl.Enum(["A", "B"])
TIME = pl.Datetime("us", "UTC")


class Quote(NamedTuple):
    """A best bid and ask, in force from `us` on."""

    ticker: str
    us: int
    bid: int | None
    ask: int | None
    is_known: bool = True
    bid_size: int = 100
    ask_size: int = 100


class Trade(NamedTuple):
    """A trade; a confirmed one has its time from the exchange's listing."""

    ticker: str
    us: int
    price: int
    count_e2: int
    is_block: bool = False
    is_confirmed: bool = True


def quote_frame(quotes: list[Quote]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (
                q.ticker, q.us, "change" if q.is_known else "hole", q.bid, None if q.bid is None else q.bid_size, q.ask,
                None if q.ask is None else q.ask_size,
            )
            for q in quotes
        ],
        {
            "ticker": TICKERS, "exchange_ts": TIME, "event": pl.String, "bid_dollars": pl.Int32,
            "bid_contracts": pl.Int64, "ask_dollars": pl.Int32, "ask_contracts": pl.Int64,
        },
        orient="row",
    )  # fmt: skip


def trade_frame(trades: list[Trade]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (t.ticker, t.us // 1_000 * 1_000, t.us if t.is_confirmed else None, t.price, t.count_e2, t.is_block)
            for t in trades
        ],
        {
            "ticker": TICKERS, "exchange_ts": TIME, "created_time": TIME, "yes_price_e4": pl.Int32,
            "count_e2": pl.Int64, "is_block_trade": pl.Boolean,
        },
        orient="row",
    )  # fmt: skip


def change_frame(changes: list[tuple[str, int]]) -> pl.DataFrame:
    return pl.DataFrame(changes, {"ticker": TICKERS, "exchange_ts": TIME}, orient="row")


def ticker_frame(tickers: list[tuple[str, int, int]]) -> pl.DataFrame:
    return pl.DataFrame(tickers, {"ticker": TICKERS, "exchange_ts": TIME, "open_interest_e2": pl.Int64}, orient="row")
