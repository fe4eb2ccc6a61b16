"""raw/coverage: when production holds every change of a market's book."""

from kalshi_platform.lake.datasets.dataset import raw_dataset
from kalshi_platform.market.tables import CLOSE_TABLES

# A close that finds claims to contradict each other covers less than the one before.
DATASET = raw_dataset(CLOSE_TABLES["coverage"], made_by_close=True)
