"""The book of one market at one moment, from the lake: a checkpoint and the deltas after it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import polars as pl

from kalshi_platform.errors import MissingPartition
from kalshi_platform.lake.layout import find_dataset, partition_at
from kalshi_platform.lake.reader.partitions import Holes, missing_partitions, read_rows, read_rows_with_manifests
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.fold import sum_levels
from kalshi_platform.market.times import HOUR

_US = timedelta(microseconds=1)


def book_at(
    lake: Lake,
    ticker: str,
    at: datetime,
    *,
    holes: Holes = "raise",
    open: bool = False,
    look_back: timedelta = timedelta(hours=24),
) -> pl.DataFrame:
    """The book of one market at the end of `at`: one row per level, `side, price_e4, count_e2`, ascending.

    It is the newest checkpoint at or before `at` plus the later deltas; `checkpoint_ts` and `exact` come with every
    row. `exact`: every hour between the two is there, closed, and complete for all markets that were recorded in it
    (`coverage_share` 1), so that no delta can be missing. Where other markets have holes it is False although this one
    may have none: `book_at` of production looks at the market's own coverage. Raises MissingPartition when there is no
    checkpoint within `look_back`, an hour between it and `at` is missing, or a level is below zero, which only a lost
    delta explains. With `holes="mark"` the latter two give `exact = False` instead.
    """
    store = open_store(lake)
    checkpoint, complete = _newest_checkpoint(store, ticker, at, holes=holes, open=open, look_back=look_back)
    data = find_dataset("raw/orderbook_deltas")
    changes, hours = read_rows_with_manifests(
        store, data, checkpoint["checkpoint_ts"] + _US, at + _US, [ticker], holes=holes, open=open
    )
    complete = complete and all(manifest is not None and manifest.coverage_share == 1 for manifest in hours)
    levels = sum_levels(pl.concat([_levels(checkpoint), changes.select("side", "price_e4", count_e2="delta_e2")]), ())
    negative = levels.filter(pl.col("count_e2") < 0)
    if holes == "raise" and negative.height:
        side, price_e4, count_e2 = negative.row(0)
        raise MissingPartition(
            f"the book of {ticker} at {at.isoformat()} lacks changes: its {side} level at {price_e4} is {count_e2}"
        )
    return levels.with_columns(
        checkpoint_ts=pl.lit(checkpoint["checkpoint_ts"], pl.Datetime("us", "UTC")),
        exact=pl.lit(complete and not negative.height),
    )


def _newest_checkpoint(
    store: ObjectStore, ticker: str, at: datetime, *, holes: Holes, open: bool, look_back: timedelta
) -> tuple[dict[str, Any], bool]:
    """The last checkpoint at or before `at`, and whether every hour that was searched is there."""
    data, complete = find_dataset("raw/book_checkpoints"), True
    last = partition_at(data, at)
    hour = last.start
    while hour > last.start - look_back:
        found = read_rows(store, data, hour, min(hour + HOUR, at + _US), [ticker], holes=holes, open=open)
        if found.height:
            newest = found.filter(pl.col("checkpoint_ts") == pl.col("checkpoint_ts").max())
            return newest.row(0, named=True), complete
        complete = complete and not missing_partitions(store, data, hour, hour + HOUR, open=open)
        hour -= HOUR
    raise MissingPartition(
        f"{ticker} has no checkpoint in the {look_back} before {at.isoformat()}: its book is not known"
    )


def _levels(checkpoint: dict[str, Any]) -> pl.DataFrame:
    rows = [
        (side, price_e4, count_e2)
        for side in ("yes", "no")
        for price_e4, count_e2 in zip(checkpoint[f"{side}_price_e4"], checkpoint[f"{side}_count_e2"], strict=True)
    ]
    return pl.DataFrame(rows, schema={"side": pl.String, "price_e4": pl.Int32, "count_e2": pl.Int64}, orient="row")
