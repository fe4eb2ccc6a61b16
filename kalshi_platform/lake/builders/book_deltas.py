"""Makes processed/book_deltas: all changes of books, with what the day opens with and what checkpoints bring. Pure."""

from __future__ import annotations

import polars as pl

from kalshi_platform.lake.builders.book_fold import BookFold, Ints
from kalshi_platform.lake.builders.book_inputs import DELTAS, EVENTS
from kalshi_platform.lake.builders.builder import HourRows

_EVENT = pl.Enum(EVENTS)
_SIDE = pl.Enum(["no", "yes"])
_TIME = pl.Datetime("us", "UTC")


class BookDeltas:
    """The rows of processed/book_deltas."""

    def __init__(self) -> None:
        self._fold = BookFold()

    def add(self, hour: HourRows) -> pl.DataFrame:
        """Return the rows of these hours."""
        folded = self._fold.add(hour)
        if folded is None:
            return pl.DataFrame()
        rows = folded.rows
        return pl.DataFrame(
            {
                "ticker": enum(rows.line, hour.rows[DELTAS].schema["ticker"]),
                "exchange_ts": pl.Series(rows.time_us + folded.start_us).cast(_TIME),
                "event": enum(rows.event, _EVENT),
                "side": enum(rows.side, _SIDE),
                "price_dollars": pl.Series(rows.price_e4).cast(pl.Int32),
                "delta_contracts": rows.delta_e2,
            }
        )

    def finish(self) -> pl.DataFrame:
        """Return nothing: every row came with its hour."""
        return pl.DataFrame()


def enum(places: Ints, dtype: pl.DataType) -> pl.Series:
    """Texts by their places among the categories of an Enum."""
    assert isinstance(dtype, pl.Enum), dtype  # noqa: S101 - what HourRows promises
    return pl.Series(places).cast(pl.UInt32).cat.to(dtype)
