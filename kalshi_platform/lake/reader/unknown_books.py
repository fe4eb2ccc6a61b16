"""Where data sets of books lack a market: in the holes of its coverage, and after each until its book is known again.

After a hole a book is known from the next checkpoint on, which may stand long after the hole's end. Data sets that are
folded from books say so in their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple, cast

import polars as pl

from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.lake.layout import partition_at
from kalshi_platform.lake.reader.coverage import CoverageHole, find_holes, is_real
from kalshi_platform.lake.reader.source import AbsentPartition, Selection, Source
from kalshi_platform.market.times import US_PER_S, datetime_from_us, hour_of, us_from_datetime

NO_BOOK_YET = "no book is known since the hole"


class _Folded(NamedTuple):
    """How a data set is folded: its rows stand at multiples of `period_us`, and `is_known` holds where a book is."""

    period_us: int
    is_known: pl.Expr


_FOLDED: Mapping[str, _Folded] = {
    "processed/quotes": _Folded(1, pl.col("event") != "hole"),
    "processed/book_1s": _Folded(US_PER_S, pl.col("bid_dollars").is_not_null()),
    "processed/book_1m": _Folded(60 * US_PER_S, pl.col("bid_dollars").is_not_null()),
}


def find_lacking(
    source: Source, data: Dataset, start: datetime, end: datetime, tickers: Sequence[str] | None
) -> list[CoverageHole]:
    """Find what a data set of books lacks within [start, end), by ticker and ascending; see `find_holes`."""
    folded = _FOLDED.get(data.key)
    if folded is None or start >= end:
        return find_holes(source, start, end, tickers)
    # A checkpoint stands at the end of each hour: what a hole leaves unknown ends there.
    holes = find_holes(source, hour_of(start), end, tickers)
    real = [hole for hole in holes if hole.ticker and is_real(hole, allow_unclosed=source.takes_unclosed)]
    if real:
        found = sorted([*holes, *_unknown_after(source, data, folded, real, end)], key=_place)
        # The next hole has a span of its own, or is one in which there is no book.
        holes = [
            hole._replace(to_us=min(hole.to_us, later.from_us)) if later.ticker == hole.ticker else hole
            for hole, later in pairwise([*found, CoverageHole(None, 0, 0, "")])
        ]
    start_us = us_from_datetime(start)
    return [
        hole._replace(from_us=max(hole.from_us, start_us)) for hole in holes if hole.to_us > max(start_us, hole.from_us)
    ]


def _place(hole: CoverageHole) -> tuple[str, int, bool]:
    return hole.ticker or "", hole.from_us, hole.reason != NO_BOOK_YET


def _unknown_after(
    source: Source, data: Dataset, folded: _Folded, holes: Sequence[CoverageHole], end: datetime
) -> Iterator[CoverageHole]:
    """Yield the spans from the ends of holes to where the data set has a book again."""
    period_us, end_us = folded.period_us, us_from_datetime(end)
    begin = partition_at(data, datetime_from_us(min(hole.from_us for hole in holes))).start
    tickers = tuple(sorted({hole.ticker for hole in holes if hole.ticker}))
    rows = _read_states(source, data, folded, Selection(begin, end, tickers))
    asked = (
        pl.DataFrame(
            {"ticker": [hole.ticker for hole in holes], "to_us": [hole.to_us for hole in holes]},
            schema={"ticker": pl.String, "to_us": pl.Int64},
        )
        .with_columns(at_us=(pl.col("to_us") + period_us - 1) // period_us * period_us)
        .filter(pl.col("at_us") < end_us)
        .sort("at_us")
    )
    unknown = asked.join_asof(
        rows, left_on="at_us", right_on="ts_us", by="ticker", strategy="backward", check_sortedness=False
    ).filter(~pl.col("is_known").fill_null(False))
    again = unknown.select("ticker", "to_us", "at_us").join_asof(
        rows.filter("is_known"), left_on="at_us", right_on="ts_us", by="ticker", strategy="forward",
        check_sortedness=False,
    )  # fmt: skip
    for ticker, to_us, again_us in again.select("ticker", "to_us", pl.col("ts_us").fill_null(end_us)).iter_rows():
        yield CoverageHole(ticker, to_us, again_us, NO_BOOK_YET)


def _read_states(source: Source, data: Dataset, folded: _Folded, rows: Selection) -> pl.DataFrame:
    """Whether books are known, by ticker and time: ticker, ts_us, is_known."""
    columns = ("ticker", data.time_column, *sorted(folded.is_known.meta.root_names()))
    frames = [pl.DataFrame(schema={"ticker": pl.String, "ts_us": pl.Int64, "is_known": pl.Boolean})]
    for found in source.find(data, rows.start, rows.end):
        if not isinstance(found, AbsentPartition):
            content, _ = source.read(found, Selection(rows.start, rows.end, rows.tickers, columns))
            frame = cast(pl.DataFrame, pl.from_arrow(content))
            frames.append(
                frame.select(
                    pl.col("ticker").cast(pl.String),
                    ts_us=pl.col(data.time_column).dt.epoch("us"),
                    is_known=folded.is_known,
                )
            )
    return pl.concat(frames).sort("ts_us")
