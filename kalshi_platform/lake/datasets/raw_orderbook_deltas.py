"""raw/orderbook_deltas: every change of a book's level, once."""

from kalshi_platform.lake.datasets.dataset import raw_dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES

# Deltas of one moment apply together, so that their order says nothing.
DATASET = raw_dataset(PRODUCTION_TABLES["orderbook_deltas"])
