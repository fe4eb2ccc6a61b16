"""raw/book_checkpoints: the books that folds start from."""

from kalshi_platform.lake.datasets.dataset import raw_dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES

DATASET = raw_dataset(
    PRODUCTION_TABLES["book_checkpoints"],
    rows_per_group=16 * 1024,
    formerly="book_anchors",  # version 0.1
    # A close that has found a snapshot to be wrong makes fewer.
    made_by_close=True,
)
