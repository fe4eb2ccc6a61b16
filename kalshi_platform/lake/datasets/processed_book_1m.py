"""processed/book_1m: the ten best levels of every market at the ends of minutes."""

from kalshi_platform.lake.datasets.processed_book_1s import books_of_periods
from kalshi_platform.market.times import US_PER_S

DATASET = books_of_periods("book_1m", "minute", 60 * US_PER_S)
