"""Reads the lake as Polars frames: `from kalshi_platform.lake import reader`.

All ranges are [start, end) in aware datetimes. A partition counts as there when its manifest says `closed`, or `open`
with `open=True`; with `production_url` what is not closed in the lake comes from production. A range in which a
partition is not there raises MissingPartition. Data sets of books also raise HoleInRange where deltas of a wanted
market may be missing; other markets do not matter. With `holes="mark"` the frame comes with a column `segment`
instead: rows (of one market) of different segments have missing time between them, so nothing may be carried from one
to the next. `holes()` lists what may be missing, by market; `partition_holes()` which partitions are not there.

A partition is read as one of its manifests says, never as files lie in the folder: one that is replaced while it is
read comes wholly from before or wholly from after.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from kalshi_platform.lake.layout import find_dataset
from kalshi_platform.lake.reader.books import Book, book_at, find_book, yes_book_at, yes_levels
from kalshi_platform.lake.reader.coverage import find_holes, holes_frame
from kalshi_platform.lake.reader.estimate import estimate
from kalshi_platform.lake.reader.frames import missing_partitions
from kalshi_platform.lake.reader.replay import BookKnown, Delta, Event, HoleBegins, MarketBook, Record, Replay, replay
from kalshi_platform.lake.reader.scan import scan
from kalshi_platform.lake.reader.source import AbsentPartition, Holes, Source, make_source
from kalshi_platform.lake.reader.tables import (
    books,
    candles,
    coverage,
    deltas,
    events,
    lifecycle,
    markets,
    quotes,
    read,
    scan_books,
    scan_candles,
    scan_coverage,
    scan_deltas,
    scan_events,
    scan_lifecycle,
    scan_markets,
    scan_quotes,
    scan_series,
    scan_tickers,
    scan_trades,
    series,
    tickers,
    trades,
)
from kalshi_platform.lake.store import Lake

__all__ = [
    "AbsentPartition",
    "Book",
    "BookKnown",
    "Delta",
    "Event",
    "HoleBegins",
    "Holes",
    "MarketBook",
    "Record",
    "Replay",
    "Source",
    "book_at",
    "books",
    "candles",
    "coverage",
    "deltas",
    "estimate",
    "events",
    "find_book",
    "holes",
    "lifecycle",
    "markets",
    "missing_partitions",
    "partition_holes",
    "quotes",
    "read",
    "replay",
    "scan",
    "scan_books",
    "scan_candles",
    "scan_coverage",
    "scan_deltas",
    "scan_events",
    "scan_lifecycle",
    "scan_markets",
    "scan_quotes",
    "scan_series",
    "scan_tickers",
    "scan_trades",
    "series",
    "tickers",
    "trades",
    "yes_book_at",
    "yes_levels",
]


def holes(
    lake: Lake | Source,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None = None,
    *,
    open: bool = False,
    production_url: str | None = None,
) -> pl.DataFrame:
    """Spans of [start, end) in which deltas of a market may be missing: `ticker, from_ts, to_ts, reason`.

    Without `tickers`: of every market that has coverage or deltas in the range; a null ticker means every market.
    """
    with make_source(lake, open=open, production_url=production_url).session() as source:
        return holes_frame(find_holes(source, start, end, tickers))


def partition_holes(
    lake: Lake | Source, dataset: str, start: datetime, end: datetime, *, open: bool = False
) -> pl.DataFrame:
    """The partitions that a data set lacks in [start, end): one row each, `start, end, reason`."""
    found = missing_partitions(lake, find_dataset(dataset), start, end, open=open)
    return pl.DataFrame(
        [(absent.partition.start, absent.partition.end, absent.reason) for absent in found],
        schema={"start": pl.Datetime("us", "UTC"), "end": pl.Datetime("us", "UTC"), "reason": pl.String},
        orient="row",
    )
