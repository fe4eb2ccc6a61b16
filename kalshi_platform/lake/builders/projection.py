"""Makes a data set that has one row for each raw row of the day, its columns named and scaled for analysis. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from kalshi_platform.lake.builders.builder import HourRows


class Projection:
    """Gives each row of one raw data set once, in its order, with the columns of `columns` (name → expression).

    Rows outside the day are none of it.
    """

    def __init__(self, source: str, columns: Mapping[str, pl.Expr]) -> None:
        self._source = source
        self._columns = dict(columns)

    def add(self, hour: HourRows) -> pl.DataFrame:
        """Return the rows of an hour."""
        return hour.rows[self._source].select(**self._columns) if hour.in_day else pl.DataFrame()

    def finish(self) -> pl.DataFrame:
        """Return nothing: every row is given at once."""
        return pl.DataFrame()


def decimal_text(text: pl.Expr, scale: int) -> pl.Expr:
    """Decimal texts as integers of 10^-scale; null where a text is no number."""
    return text.cast(pl.Decimal(18, scale), strict=False).to_physical().cast(pl.Int64)
