"""Reads the lake as Polars frames: `from kalshi_platform.lake import reader`.

All ranges are [start, end) in aware datetimes. A partition counts as there when its manifest says `closed`, or `open`
with `open=True`. A range in which one is not there raises
MissingPartition. With `holes="mark"` the frame comes with a column
`segment` instead: rows of different segments have missing time between them, so nothing may be carried from one to the
next; `holes()` lists what is missing. What was lost inside a published hour leaves no hole here: of an hour of deltas
the manifest's `coverage_share` says how much is known to be complete, and `book_at` calls no book exact without it.

A partition is read as one of its manifests says, never as files lie in the folder: one that is replaced while it is
read comes wholly from before or wholly from after.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import polars as pl

from kalshi_platform.lake.layout import find_dataset
from kalshi_platform.lake.reader.books import book_at
from kalshi_platform.lake.reader.partitions import AbsentPartition, Holes, missing_partitions, read_rows
from kalshi_platform.lake.store import Lake

__all__ = [
    "AbsentPartition",
    "Holes",
    "book_at",
    "candles",
    "deltas",
    "holes",
    "missing_partitions",
    "trades",
]


def deltas(
    lake: Lake,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None = None,
    *,
    holes: Holes = "raise",
    open: bool = False,
) -> pl.DataFrame:
    """Order-book changes by exchange_ts, columns of raw/orderbook_deltas, sorted by market and time."""
    return read_rows(lake, find_dataset("raw/orderbook_deltas"), start, end, tickers, holes=holes, open=open)


def trades(
    lake: Lake,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None = None,
    *,
    layer: Literal["raw", "processed"] = "raw",
    holes: Holes = "raise",
    open: bool = False,
) -> pl.DataFrame:
    """Trades by exchange_ts: scaled integers with provenance (`raw`), or dollars and contracts (`processed`)."""
    return read_rows(lake, find_dataset(f"{layer}/trades"), start, end, tickers, holes=holes, open=open)


def candles(
    lake: Lake,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None = None,
    *,
    holes: Holes = "raise",
    open: bool = False,
) -> pl.DataFrame:
    """One-minute candles by the start of their minute; a minute without a trade has no row."""
    return read_rows(lake, find_dataset("aggregates/candles_1m"), start, end, tickers, holes=holes, open=open)


def holes(lake: Lake, table: str, start: datetime, end: datetime, *, open: bool = False) -> pl.DataFrame:
    """What a data set lacks in [start, end): one row per missing partition, `start, end, reason`."""
    found = missing_partitions(lake, find_dataset(table), start, end, open=open)
    return pl.DataFrame(
        [(absent.partition.start, absent.partition.end, absent.reason) for absent in found],
        schema={"start": pl.Datetime("us", "UTC"), "end": pl.Datetime("us", "UTC"), "reason": pl.String},
        orient="row",
    )
