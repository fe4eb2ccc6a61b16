"""raw/market_lifecycle: every message of a market's or an event's life, once."""

from kalshi_platform.lake.datasets.dataset import IN_STREAM, raw_dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES

DATASET = raw_dataset(
    PRODUCTION_TABLES["market_lifecycle"],
    order=("ticker", "received_at", *IN_STREAM, "fingerprint"),
    plain=frozenset({"content", "fingerprint"}),
    rows_per_group=32 * 1024,
)
