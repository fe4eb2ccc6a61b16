"""processed/quotes: the best bid and offer of every market, a row per change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kalshi_platform.lake.builders.book_inputs import BOOK_INPUTS
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column

if TYPE_CHECKING:
    from kalshi_platform.lake.builders.builder import Builder


def _builder() -> Builder:
    from kalshi_platform.lake.builders.quotes import Quotes

    return Quotes()


DATASET = Dataset(
    "processed",
    "quotes",
    "One row per change of a market's best prices or their sizes, after all changes of one exchange time; no row where"
    " they stay the same.",
    (
        PRODUCTION_TABLES["orderbook_deltas"]["ticker"],
        Column("exchange_ts", "timestamptz", "From the end of this moment on the row holds, until the next one."),
        Column(
            "event",
            "text",
            "open: the first row of the day. change: the book changed. hole: from here on the book is not known, and"
            " all prices are null. resync: it is known again, or a checkpoint corrected it.",
        ),
        Column("bid_dollars", "numeric(9,4)", "Best yes bid; null where there is none.", nullable=True),
        Column("bid_contracts", "numeric(18,2)", "Its size.", nullable=True),
        Column(
            "ask_dollars",
            "numeric(9,4)",
            "Best yes offer: 1 - the best no bid; null where there is none.",
            nullable=True,
        ),
        Column("ask_contracts", "numeric(18,2)", "Its size.", nullable=True),
    ),
    time_column="exchange_ts",
    identity=("ticker", "exchange_ts"),
    order=("ticker", "exchange_ts"),
    builder=_builder,
    inputs=BOOK_INPUTS,
    hours_before=1,
    growth=2.0,
)
