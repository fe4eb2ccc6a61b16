"""processed/book_deltas: every change of a book's level, after the books that a day opens with: their sum is a book."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kalshi_platform.lake.builders.book_inputs import BOOK_INPUTS
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column

if TYPE_CHECKING:
    from kalshi_platform.lake.builders.builder import Builder


def _builder() -> Builder:
    from kalshi_platform.lake.builders.book_deltas import BookDeltas

    return BookDeltas()


_DELTAS = PRODUCTION_TABLES["orderbook_deltas"]

DATASET = Dataset(
    "processed",
    "book_deltas",
    "One row per change of a book's level. The sum of a market's rows up to a moment is its book at the end of that"
    " moment, wherever processed/coverage calls it complete.",
    (
        _DELTAS["ticker"],
        Column("exchange_ts", "timestamptz", "When it changed; all rows of one time apply together."),
        Column(
            "event",
            "text",
            "change: the exchange published it. open: the book at the start of the day, or the first that is known in"
            " the day, as changes of what was summed before. resync: what a checkpoint shows to be missing, after a"
            " hole.",
        ),
        _DELTAS["side"],
        Column("price_dollars", "numeric(9,4)", "Price of the level; a no bid at p is a yes offer at 1 - p."),
        Column("delta_contracts", "numeric(18,2)", "Signed change of the level's size."),
    ),
    time_column="exchange_ts",
    # Equal changes of one moment are equal rows.
    identity=(),
    order=("ticker", "exchange_ts", "event", "side", "price_dollars", "delta_contracts"),
    builder=_builder,
    inputs=BOOK_INPUTS,
    hours_before=1,
)
