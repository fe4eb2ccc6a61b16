"""processed/trades: a day of trades for analysis, in dollars and contracts as exact decimals."""

from kalshi_platform.lake.datasets.dataset import TRADE_ID, Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column

_TRADES = PRODUCTION_TABLES["trades"]

DATASET = Dataset(
    "processed",
    "trades",
    "One row per trade: prices in dollars, sizes in contracts, exact decimals.",
    (
        _TRADES["ticker"],
        _TRADES["exchange_ts"],
        *TRADE_ID,
        Column("yes_price_dollars", "numeric(9,4)", "Price of the yes contract."),
        Column("no_price_dollars", "numeric(9,4)", "Price of the no contract."),
        Column("count_contracts", "numeric(18,2)", "Contracts traded."),
        _TRADES["taker_side"],
        _TRADES["is_block_trade"],
        _TRADES["created_time"],
        _TRADES["source"],
    ),
    time_column="exchange_ts",
    identity=("ticker", "exchange_ts", "trade_id"),
    # The files have the order of the stream as well, which the columns do not show.
    order=("ticker", "exchange_ts", "created_time"),
    source="trades",
    statement="processed_trades",
    plain=frozenset({"trade_id", "trade_id_text"}),
)
