"""The columns of candles, which those of all periods have."""

from __future__ import annotations

from kalshi_platform.lake.builders.book_inputs import BOOK_INPUTS
from kalshi_platform.lake.builders.builder import Builder
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column, SqlType

SINCE = 2
"""Version 1 had candles of trades alone, by the start of their minute and without block trades."""
_WORDS = {"open": "at the period's start", "low": "lowest", "high": "highest", "close": "at the period's end"}
_QUOTES = {"yes_bid": "Best yes bid", "yes_ask": "Best yes ask, which is 1 dollar less the best no bid"}
_EMPTY = {"yes_bid": "0", "yes_ask": "1 dollar"}


def candles_dataset(name: str, period_minutes: int, period: str) -> Dataset:
    """Candles of one period; `period` is its length in words."""
    return Dataset(
        "aggregates",
        name,
        f"One row per market and {period} in which its book changed or a trade came, as Kalshi's candlesticks define"
        " it: the period is start_period_ts < t <= end_period_ts.",
        (
            PRODUCTION_TABLES["trades"]["ticker"],
            _column("start_period_ts", "timestamptz", f"The exclusive start of the {period}, which lies in the day."),
            _column("end_period_ts", "timestamptz", f"The inclusive end of the {period}, which Kalshi names it by."),
            *(
                _column(
                    f"{side}_{price}_dollars",
                    "numeric(9,4)",
                    f"{text}, {_WORDS[price]}; {_EMPTY[side]} where that side is empty, null where it is not known.",
                    nullable=True,
                )
                for side, text in _QUOTES.items()
                for price in _WORDS
            ),
            *(
                _column(f"price_{price}_dollars", "numeric(9,4)", f"{text} yes price of a trade.", nullable=True)
                for price, text in (("open", "First"), ("low", "Lowest"), ("high", "Highest"), ("close", "Last"))
            ),
            _column(
                "price_mean_dollars",
                "numeric(9,4)",
                "Mean yes price of the trades, weighted by contracts.",
                nullable=True,
            ),
            _column(
                "price_previous_dollars",
                "numeric(9,4)",
                "Yes price of the last trade before the period, where the day's record knows it.",
                nullable=True,
            ),
            _column("volume_contracts", "numeric(18,2)", "Contracts traded, those of block trades included."),
            _column(
                "open_interest_contracts",
                "numeric(18,2)",
                "Contracts held at the period's end, as the last ticker has it.",
                nullable=True,
            ),
            _column("trades", "bigint", "Trades, block trades included."),
            _column("block_trades", "bigint", "Block trades, which were negotiated off the book."),
            _column("block_volume_contracts", "numeric(18,2)", "Contracts in block trades."),
            _column(
                "is_complete",
                "boolean",
                "Whether coverage holds the whole period, and the exchange's listing confirms each of its trades.",
            ),
        ),
        time_column="start_period_ts",
        identity=("ticker", "start_period_ts"),
        order=("ticker", "start_period_ts"),
        readable_since=SINCE,
        builder=lambda: _builder(period_minutes),
        inputs={
            **BOOK_INPUTS,
            "raw/trades": ("ticker", "exchange_ts", "created_time", "yes_price_e4", "count_e2", "is_block_trade"),
            "raw/tickers": ("ticker", "exchange_ts", "price_e4", "open_interest_e2"),
        },
        hours_before=1,
        hours_after=1,
        growth=2.0,
    )


def _builder(period_minutes: int) -> Builder:
    from kalshi_platform.lake.builders.candles import CandlesBuilder

    return CandlesBuilder(period_minutes)


def _column(name: str, kind: SqlType, meaning: str, *, nullable: bool = False) -> Column:
    return Column(name, kind, meaning, nullable=nullable, since=SINCE)
