"""The checkpoints from which a replay knows the books of markets: for each covered span the first one that holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, cast

import polars as pl

from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.layout import partitions_between
from kalshi_platform.lake.reader.coverage import CoverageHole
from kalshi_platform.lake.reader.source import AbsentPartition, Selection, Source
from kalshi_platform.market.intervals import holes as complement
from kalshi_platform.market.times import HOUR, us_from_datetime

CHECKPOINTS = DATASETS["raw/book_checkpoints"]
_US = timedelta(microseconds=1)
_LEVELS = ("yes_price_e4", "yes_count_e2", "no_price_e4", "no_count_e2")
_KEY = ("ticker", "checkpoint_ts")


class KnownBook(NamedTuple):
    """A market's book at the end of `ts_us`, from which the deltas lead on; `yes`, `no`: prices and sizes."""

    ts_us: int
    ticker: str
    yes: tuple[list[int], list[int]]
    no: tuple[list[int], list[int]]


class KnownBooks:
    """The books that become known within [begin, end), hour by hour.

    A checkpoint at k holds in a covered span [from, to) with from − 1 µs <= k < to: the span's deltas lead on from it.
    """

    def __init__(
        self, source: Source, begin: datetime, end: datetime, holes: Mapping[str, Sequence[CoverageHole]]
    ) -> None:
        self._source = source
        self._tickers = sorted(holes)
        low, high = us_from_datetime(begin), us_from_datetime(end)
        spans = [
            (ticker, *span)
            for ticker in self._tickers
            for span in complement([(hole.from_us, hole.to_us) for hole in holes[ticker]], (low, high))
        ]
        schema = {"ticker": pl.String, "from_us": pl.Int64, "to_us": pl.Int64}
        self._unknown = pl.DataFrame(spans, schema=schema, orient="row").with_columns(first_us=pl.col("from_us") - 1)
        self._hours = list(partitions_between(CHECKPOINTS, begin, end))
        self._read: deque[KnownBook] = deque()

    def before(self, high_us: int) -> Iterator[KnownBook]:
        """Yield those before `high_us` that were not yielded yet, ascending."""
        while self._hours and us_from_datetime(self._hours[0].start) < high_us:
            self._read.extend(self._read_hour(self._hours.pop(0).start))
        while self._read and self._read[0].ts_us < high_us:
            yield self._read.popleft()

    def _read_hour(self, hour: datetime) -> list[KnownBook]:
        """Read the books of spans that none was found for yet; the last moment of the hour before counts too."""
        end_us = us_from_datetime(hour + HOUR)
        if self._unknown.filter(pl.col("from_us") < end_us).is_empty():
            return []
        keys = self._rows(hour, self._tickers, _KEY).with_columns(k_us=pl.col("checkpoint_ts").dt.epoch("us"))
        found = (
            self._unknown.sort("first_us")
            .join_asof(
                keys.select("ticker", "k_us").unique().sort("k_us"),
                left_on="first_us",
                right_on="k_us",
                by="ticker",
                strategy="forward",
                check_sortedness=False,
            )
            .filter(pl.col("k_us") < pl.col("to_us"))
        )
        self._unknown = self._unknown.join(found, on=["ticker", "from_us"], how="anti").filter(pl.col("to_us") > end_us)
        if found.is_empty():
            return []
        wanted = found.select("ticker", checkpoint_ts=pl.from_epoch("k_us", "us").dt.replace_time_zone("UTC"))
        tickers = wanted.get_column("ticker").unique().to_list()
        rows = self._rows(hour, tickers, (*_KEY, "gatherer", "stream_id", "seq", *_LEVELS))
        books = (
            rows.join(wanted, on=list(_KEY), how="semi")
            .sort(*_KEY, "gatherer", "stream_id", "seq")
            .unique(list(_KEY), keep="first", maintain_order=True)
            .sort("checkpoint_ts", maintain_order=True)
            .select("ticker", pl.col("checkpoint_ts").dt.epoch("us"), *_LEVELS)
        )
        return [
            KnownBook(ts_us, ticker, (yes_price, yes_count), (no_price, no_count))
            for ticker, ts_us, yes_price, yes_count, no_price, no_count in books.iter_rows()
        ]

    def _rows(self, hour: datetime, tickers: Sequence[str], columns: tuple[str, ...]) -> pl.DataFrame:
        selection = Selection(hour - _US, hour + HOUR, tuple(tickers), columns)
        frames = []
        for found in list(self._source.find(CHECKPOINTS, hour - _US, hour + HOUR)):
            if not isinstance(found, AbsentPartition):
                rows, _ = self._source.read(found, selection)
                frames.append(cast(pl.DataFrame, pl.from_arrow(rows)))
        if not frames:
            schema = pl.DataFrame(pl.from_arrow(CHECKPOINTS.schema.empty_table())).select(columns).schema
            return pl.DataFrame(schema=schema)
        return pl.concat(frames)
