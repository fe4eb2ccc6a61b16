"""raw/orderbook_snapshots: every whole book that was sent or polled."""

from kalshi_platform.lake.datasets.dataset import raw_dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES

DATASET = raw_dataset(PRODUCTION_TABLES["orderbook_snapshots"], rows_per_group=16 * 1024)
