"""processed/book_1m: the ten best levels of every market at the ends of minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kalshi_platform.lake.builders.book_inputs import BOOK_INPUTS
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.lake.datasets.processed_book_1s import BOOK_LISTS, book_columns
from kalshi_platform.market.times import US_PER_S

if TYPE_CHECKING:
    from kalshi_platform.lake.builders.builder import Builder


def _builder() -> Builder:
    from kalshi_platform.lake.builders.book_periods import BookPeriods

    return BookPeriods(60 * US_PER_S)


DATASET = Dataset(
    "processed",
    "book_1m",
    "One row per market and minute at whose end its ten best levels a side are not those of the row before, and one at"
    " the start of the day.",
    book_columns("minute"),
    time_column="ts",
    identity=("ticker", "ts"),
    order=("ticker", "ts"),
    plain=BOOK_LISTS,
    rows_per_group=16 * 1024,
    builder=_builder,
    inputs=BOOK_INPUTS,
    hours_before=1,
    growth=10.0,
)
