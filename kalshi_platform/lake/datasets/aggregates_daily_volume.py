"""aggregates/daily_volume: what was traded in each market on each UTC day, as the exchange's daily report has it."""

from kalshi_platform.lake.builders.builder import Builder
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column


def _builder() -> Builder:
    from kalshi_platform.lake.builders.daily_volume import DailyVolumeBuilder

    return DailyVolumeBuilder()


DATASET = Dataset(
    "aggregates",
    "daily_volume",
    "One row per market and UTC day in which it had a trade or a ticker.",
    (
        PRODUCTION_TABLES["trades"]["ticker"],
        Column("day", "timestamptz", "Start of the day; its trades are those with day <= exchange_ts < the next day."),
        Column("event_ticker", "text", "The event, by the market's ticker without its last part."),
        Column(
            "series_ticker", "text", "The series, by the first part of the ticker; report_ticker of the daily report."
        ),
        Column("trades", "bigint", "Trades, block trades included."),
        Column("volume_contracts", "numeric(18,2)", "Contracts traded, those of block trades included."),
        Column("turnover_dollars", "numeric(18,6)", "Contracts times their yes price, block trades included."),
        Column("block_trades", "bigint", "Block trades, which were negotiated off the book."),
        Column("block_volume_contracts", "numeric(18,2)", "Contracts in block trades."),
        Column("high_dollars", "numeric(9,4)", "Highest yes price of a trade.", nullable=True),
        Column("low_dollars", "numeric(9,4)", "Lowest yes price of a trade.", nullable=True),
        Column(
            "open_interest_contracts",
            "numeric(18,2)",
            "Contracts held at the day's end, as the day's last ticker has it; null where the day had none.",
            nullable=True,
        ),
    ),
    time_column="day",
    identity=("ticker", "day"),
    order=("ticker", "day"),
    builder=_builder,
    inputs={
        "raw/trades": ("ticker", "exchange_ts", "yes_price_e4", "count_e2", "is_block_trade"),
        "raw/tickers": ("ticker", "exchange_ts", "open_interest_e2"),
    },
)
