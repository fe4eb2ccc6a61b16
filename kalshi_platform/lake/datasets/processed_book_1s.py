"""processed/book_1s: the ten best levels of every market at the ends of seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kalshi_platform.lake.builders.book_inputs import BOOK_INPUTS
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column
from kalshi_platform.market.times import US_PER_S

if TYPE_CHECKING:
    from kalshi_platform.lake.builders.builder import Builder


def _builder() -> Builder:
    from kalshi_platform.lake.builders.book_periods import BookPeriods

    return BookPeriods(US_PER_S)


BOOK_LISTS = frozenset({"bid_dollars", "bid_contracts", "ask_dollars", "ask_contracts"})
"""Lists resemble those of the row before as wholes, which zstd finds better where no dictionary stands between."""


def book_columns(period: str) -> tuple[Column, ...]:
    """The columns of a data set of books at the ends of periods."""
    unknown = "; null where the book is not known, empty where it has none"
    return (
        PRODUCTION_TABLES["orderbook_deltas"]["ticker"],
        Column("ts", "timestamptz", f"The end of a {period}: the book holds all changes with exchange_ts <= ts."),
        Column("bid_dollars", "numeric(9,4)[]", f"The ten best yes bids, best first{unknown}.", nullable=True),
        Column("bid_contracts", "numeric(18,2)[]", "Their sizes.", nullable=True),
        Column("ask_dollars", "numeric(9,4)[]", f"The ten best yes offers, best first{unknown}.", nullable=True),
        Column("ask_contracts", "numeric(18,2)[]", "Their sizes.", nullable=True),
    )


DATASET = Dataset(
    "processed",
    "book_1s",
    "One row per market and second at whose end its ten best levels a side are not those of the row before, and one at"
    " the start of the day.",
    book_columns("second"),
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
