"""aggregates/candles_1m: one-minute candles from trades, without block trades in their prices."""

from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column

DATASET = Dataset(
    "aggregates",
    "candles_1m",
    "One row per market and minute with a trade; minutes without one have no row.",
    (
        PRODUCTION_TABLES["trades"]["ticker"],
        Column("minute", "timestamptz", "Start of the minute."),
        *(
            Column(f"{name}_dollars", "numeric(9,4)", f"{text} yes price, without block trades.", nullable=True)
            for name, text in (("open", "First"), ("high", "Highest"), ("low", "Lowest"), ("close", "Last"))
        ),
        Column("volume_contracts", "numeric(18,2)", "Contracts traded, without block trades."),
        Column("trades", "bigint", "Trades, without block trades."),
        Column("block_volume_contracts", "numeric(18,2)", "Contracts in block trades."),
        Column("block_trades", "bigint", "Block trades."),
    ),
    time_column="minute",
    identity=("ticker", "minute"),
    order=("ticker", "minute"),
    source="trades",
    statement="candles_1m",
)
