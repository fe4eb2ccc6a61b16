"""The interface between the engine that reads a day's raw hours and the builders that make its data sets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import polars as pl


class HourRows(NamedTuple):
    """Raw rows of some markets in one hour, or in a part of one: those with start_us <= time < end_us.

    Every hour of the day comes, also without rows, and before and after it those of `hours_before` and `hours_after`
    (`in_day` False). An hour comes in parts where one market alone has too many rows for memory; a moment is never cut.
    `rows` has a frame for each input: the columns that the data set names, in the order of the raw data set, prices and
    sizes as scaled integers, times as Datetime("us", "UTC"). `ticker` is an Enum of the markets of this builder,
    ascending by bytes, the same in every call; other texts are Categorical, and those that hardly repeat are String.
    """

    start_us: int
    end_us: int
    in_day: bool
    rows: Mapping[str, pl.DataFrame]


class Builder(Protocol):
    """Makes the rows of one data set for some markets, hour by hour; each builder is fed with one day.

    Both methods give a frame with at least the columns of the data set: decimals as integers of their smallest unit,
    texts as String, Categorical or Enum. Rows of one market come in the order of the data set, over all calls; markets
    may come in any order. What a builder gives must not depend on how the hours are cut or markets put together.
    """

    def add(self, hour: HourRows) -> pl.DataFrame:
        """Take the next rows; return the rows of the data set that are complete now, any number."""

    def finish(self) -> pl.DataFrame:
        """Return the rest, after the last hour."""
