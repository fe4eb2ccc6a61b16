"""raw/tickers: every update of best prices and totals, once."""

from kalshi_platform.lake.datasets.dataset import IN_STREAM, raw_dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES

DATASET = raw_dataset(
    PRODUCTION_TABLES["tickers"],
    order=("ticker", "exchange_ts", *IN_STREAM, "fingerprint"),
    plain=frozenset({"fingerprint"}),
)
