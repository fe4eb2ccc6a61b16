"""Checks inside a run, by seq, that a snapshot and the stream's own deltas give the next snapshot. Pure.

Both snapshots were sent by one server over one connection, without a gap between them. Where they do not fit, a frame
was lost without a trace, or read wrongly, and the stream must not claim that it is complete there.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from kalshi_platform.deduplicator.coverage.multiset_hash import book_hashes, delta_hashes
from kalshi_platform.market.intervals import Interval

RUN_CHECKS = {"stream_id": pl.Int64, "ticker": pl.String, "seq": pl.Int64, "next_seq": pl.Int64,
              "low_us": pl.Int64, "high_us": pl.Int64, "passed": pl.Boolean}  # fmt: skip


def pair_snapshots(spans: pl.DataFrame, segments: pl.DataFrame, within: Interval) -> pl.DataFrame:
    """Pair neighbouring snapshots of one run and market whose stretch touches `within`.

    `spans` as clip_to_range() gives them; `segments`: seq_from, seq_to, low_us, high_us (null without deltas). Gives
    stream_id, ticker, seq, next_seq, and between which exchange times the stream was then (low_us, high_us).
    """
    key = ["stream_id", "ticker"]
    joined = (
        spans.sort(*key, "seq")
        .with_columns(next_seq=pl.col("seq").shift(-1).over(key))
        .filter(pl.col("seq_end") == pl.col("next_seq"))
        .select(*key, "seq", "next_seq")
    )
    timed = segments.filter(pl.col("low_us").is_not_null()).sort("seq_from")
    until = timed.select(pl.col("seq_from").alias("_from"), pl.col("high_us").cum_max())
    since = timed.select(
        pl.col("seq_to").alias("_to"), pl.col("low_us").reverse().cum_min().reverse()
    )  # the earliest time of anything from this commit on
    found = joined.sort("seq").join_asof(
        since, left_on="seq", right_on="_to", strategy="forward", check_sortedness=False
    )
    found = found.sort("next_seq").join_asof(
        until, left_on="next_seq", right_on="_from", strategy="backward", check_sortedness=False
    )
    return found.filter((pl.col("low_us") < within[1]) & (pl.col("high_us") >= within[0])).select(
        *key, "seq", "next_seq", "low_us", "high_us"
    )


def hash_snapshots(snapshots: pl.DataFrame) -> pl.DataFrame:
    """Return ticker, seq and the hash of each book. `snapshots`: ticker, seq and the lists of levels."""
    return snapshots.select("ticker", "seq", pl.Series("hash", book_hashes(snapshots), dtype=pl.UInt64))


def check_snapshots(found: pl.DataFrame, hashes: pl.DataFrame, deltas: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Compare the pairs of one stream; pairs without both books are left out. Gives the columns of RUN_CHECKS.

    `hashes`: as hash_snapshots() gives them; `deltas`: frames of seq, ticker, side, price_e4, delta_e2, together at
    least all of the pairs' markets between their numbers. They are added up one after the other.
    """
    comparable = (
        found.join(hashes.rename({"hash": "_sum"}), on=["ticker", "seq"])
        .join(hashes.rename({"seq": "next_seq", "hash": "_next"}), on=["ticker", "next_seq"])
        .sort("ticker", "seq")
    )
    tickers = {ticker: number for number, ticker in enumerate(comparable["ticker"].cast(pl.String).unique().sort())}
    # The market's number and the number of the frame in one integer, ascending.
    span = int(comparable["next_seq"].to_numpy().max(initial=0)) + 1
    base = np.array([tickers[str(ticker)] for ticker in comparable["ticker"]], dtype=np.int64) * span
    low, high = base + comparable["seq"].to_numpy(), base + comparable["next_seq"].to_numpy()
    reached = comparable["_sum"].to_numpy().copy()
    for some in deltas:
        mine = some.with_columns(_text=pl.col("ticker").cast(pl.String)).filter(
            pl.col("_text").is_in(list(tickers)) & (pl.col("seq") < span)
        )
        if mine.height and len(low):
            market = mine["_text"].replace_strict(tickers, return_dtype=pl.Int64)
            keys = (market * span + mine["seq"]).to_numpy()
            pair = np.searchsorted(low, keys, side="left") - 1
            between = (pair >= 0) & (keys < high[np.maximum(pair, 0)])
            np.add.at(reached, pair[between], delta_hashes(mine)[between])
    return comparable.with_columns(
        pl.col("ticker").cast(pl.String), passed=pl.Series(reached == comparable["_next"].to_numpy(), dtype=pl.Boolean)
    ).select(pl.col(name).cast(kind) for name, kind in RUN_CHECKS.items())
