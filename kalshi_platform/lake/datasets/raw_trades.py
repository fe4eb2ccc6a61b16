"""raw/trades: every trade, once, with where it came from."""

from kalshi_platform.lake.datasets.dataset import IN_STREAM, raw_dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES

DATASET = raw_dataset(
    PRODUCTION_TABLES["trades"],
    order=("ticker", "exchange_ts", "created_time", *IN_STREAM, "trade_id"),
    plain=frozenset({"trade_id"}),
)
