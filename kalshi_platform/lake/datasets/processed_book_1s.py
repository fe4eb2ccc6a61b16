"""processed/book_1s: the ten best levels of every market at the ends of seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kalshi_platform.lake.builders.book_inputs import BOOK_INPUTS
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column
from kalshi_platform.market.times import US_PER_S

if TYPE_CHECKING:
    from kalshi_platform.lake.builders.builder import Builder

_UNKNOWN = "null where the book is not known, empty where it has none"
# Lists resemble those of the row before as wholes, which zstd finds better where no dictionary stands between.
_LISTS = frozenset({"bid_dollars", "bid_contracts", "ask_dollars", "ask_contracts"})


def books_of_periods(name: str, period: str, period_us: int) -> Dataset:
    """A data set of the books at the ends of periods."""

    def make_builder() -> Builder:
        from kalshi_platform.lake.builders.book_periods import BookPeriods

        return BookPeriods(period_us)

    return Dataset(
        "processed",
        name,
        f"One row per market and {period} at whose end its ten best levels a side are not those of the row before, and"
        " one at the start of the day.",
        (
            PRODUCTION_TABLES["orderbook_deltas"]["ticker"],
            Column("ts", "timestamptz", f"The end of a {period}: the book holds all changes with exchange_ts <= ts."),
            Column("bid_dollars", "numeric(9,4)[]", f"The ten best yes bids, best first; {_UNKNOWN}.", nullable=True),
            Column("bid_contracts", "numeric(18,2)[]", "Their sizes.", nullable=True),
            Column("ask_dollars", "numeric(9,4)[]", f"The ten best yes offers, best first; {_UNKNOWN}.", nullable=True),
            Column("ask_contracts", "numeric(18,2)[]", "Their sizes.", nullable=True),
        ),
        time_column="ts",
        identity=("ticker", "ts"),
        order=("ticker", "ts"),
        plain=_LISTS,
        rows_per_group=16 * 1024,
        builder=make_builder,
        inputs=BOOK_INPUTS,
        hours_before=1,
        growth=4.0,
    )


DATASET = books_of_periods("book_1s", "second", US_PER_S)
