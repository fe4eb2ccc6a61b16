"""aggregates/market_stats: how each market's book and trading was on each UTC day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kalshi_platform.lake.builders.book_inputs import BOOK_INPUTS, DELTAS
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column, SqlType

if TYPE_CHECKING:
    from kalshi_platform.lake.builders.builder import Builder


def _builder() -> Builder:
    from kalshi_platform.lake.builders.market_stats import MarketStatsBuilder

    return MarketStatsBuilder()


def _unless_none(name: str, kind: SqlType, meaning: str) -> Column:
    return Column(name, kind, meaning, nullable=True)


DATASET = Dataset(
    "aggregates",
    "market_stats",
    "One row per market and UTC day in which its book was known or changed, or a trade came. Means are over the time in"
    " which the book is known, so that holes count for nothing.",
    (
        PRODUCTION_TABLES["trades"]["ticker"],
        Column("day", "timestamptz", "Start of the day; its rows are those with day <= exchange_ts < the next day."),
        _unless_none("first_quote_ts", "timestamptz", "When the best prices or their sizes changed first in the day."),
        _unless_none("last_quote_ts", "timestamptz", "When they changed last."),
        Column(
            "coverage_share",
            "double precision",
            "Share of the whole day in which the book is known, from 0 to 1.",
            unit="1",
        ),
        _unless_none(
            "two_sided_share", "double precision", "Share of that time in which there was a bid and an offer."
        ),
        _unless_none(
            "spread_mean_dollars", "numeric(9,4)", "Best offer less best bid, while there were both; by time."
        ),
        _unless_none("bid_depth_mean_contracts", "numeric(18,2)", "Size at the best bid, 0 without one; by time."),
        _unless_none("ask_depth_mean_contracts", "numeric(18,2)", "Size at the best offer, 0 without one; by time."),
        _unless_none(
            "bid_depth_5c_mean_contracts",
            "numeric(18,2)",
            "Size of all bids within 5 cents of the best one, the mean over the ends of minutes.",
        ),
        _unless_none(
            "ask_depth_5c_mean_contracts",
            "numeric(18,2)",
            "Size of all offers within 5 cents of the best one, the mean over the ends of minutes.",
        ),
        Column("book_changes", "bigint", "Changes of levels."),
        Column("quote_changes", "bigint", "Changes of the best prices or their sizes."),
        Column("trades", "bigint", "Trades, block trades included."),
        Column("volume_contracts", "numeric(18,2)", "Contracts traded, those of block trades included."),
        Column("block_trades", "bigint", "Block trades, which were negotiated off the book."),
        Column("block_volume_contracts", "numeric(18,2)", "Contracts in block trades."),
        _unless_none("vwap_dollars", "numeric(9,4)", "Mean yes price of the trades, weighted by contracts."),
        _unless_none("high_dollars", "numeric(9,4)", "Highest yes price of a trade."),
        _unless_none("low_dollars", "numeric(9,4)", "Lowest yes price of a trade."),
        _unless_none(
            "latency_median_us",
            "bigint",
            "From the exchange's time of a change to the socket read of the gatherer that was merged first, the median;"
            " to 100 microseconds, below 0 where the clocks differ.",
        ),
        _unless_none("latency_p99_us", "bigint", "The same for 99 of 100 changes."),
    ),
    time_column="day",
    identity=("ticker", "day"),
    order=("ticker", "day"),
    builder=_builder,
    inputs={
        **BOOK_INPUTS,
        DELTAS: (*BOOK_INPUTS[DELTAS], "received_at"),
        "raw/trades": ("ticker", "exchange_ts", "yes_price_e4", "count_e2", "is_block_trade"),
    },
    hours_before=1,
    growth=2.0,
)
