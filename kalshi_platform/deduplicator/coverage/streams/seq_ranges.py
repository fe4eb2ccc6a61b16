"""Merges a ledger's segments into runs of contiguous seq, and clips book subscriptions to them. Pure.

Frames are polars frames; `seq_*` are inclusive. Touching segments form a run, whatever commits brought them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl


def merge_segments(segments: pl.DataFrame) -> pl.DataFrame:
    """Merge the segments (stream_id, seq_from, seq_to) of any streams into runs of the same columns."""
    ordered = segments.select("stream_id", "seq_from", "seq_to").sort("stream_id", "seq_from", "seq_to")
    reached = pl.col("seq_to").cum_max().shift(1).over("stream_id")
    starts = reached.is_null() | (pl.col("seq_from") > reached + 1)
    return (
        ordered.with_columns(_run=starts.cum_sum())
        .group_by("_run", maintain_order=True)
        .agg(pl.col("stream_id").first(), pl.col("seq_from").min(), pl.col("seq_to").max())
        .drop("_run")
    )


def clip_to_range(book_subscriptions: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Clip book subscriptions to the run that holds their snapshot: (stream_id, ticker, exchange_index, seq, seq_end).

    `book_subscriptions`: stream_id, ticker, exchange_index, seq_from (the snapshot), seq_to (null while it lasts).
    `seq` is the snapshot's; the market's book is followed from it to `seq_end`. A book subscription whose snapshot was
    never committed is left out.
    """
    run = runs.select("stream_id", pl.col("seq_from").alias("run_from"), pl.col("seq_to").alias("run_to"))
    return (
        book_subscriptions.sort("seq_from")
        .join_asof(
            run.sort("run_from"), left_on="seq_from", right_on="run_from", by="stream_id", check_sortedness=False
        )
        .filter(pl.col("seq_from") <= pl.col("run_to"))
        .select(
            "stream_id",
            "ticker",
            "exchange_index",
            pl.col("seq_from").alias("seq"),
            pl.min_horizontal("seq_to", "run_to").alias("seq_end"),
        )
        .filter(pl.col("seq_end") >= pl.col("seq"))
        .sort("stream_id", "seq", "ticker")
    )


def find_followed(book_subscriptions: pl.DataFrame, segments: pl.DataFrame) -> pl.DataFrame:
    """Return the spans of one stream in which it followed a market without a break."""
    return join_continued(clip_to_range(book_subscriptions, merge_segments(segments)))


def places_of(followed: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Return the numbers at which spans begin and end: between two of them the order of a feed's times is of no use."""
    return np.concatenate([followed[name].cast(pl.Int64).to_numpy() for name in ("seq", "seq_end")])


def join_continued(spans: pl.DataFrame) -> pl.DataFrame:
    """Join spans of one market that end at the number at which the next one starts (a newer snapshot came)."""
    key = ["stream_id", "ticker"]
    ordered = spans.sort(*key, "seq")
    begins = pl.col("seq") != pl.col("seq_end").shift(1).over(key)
    return (
        ordered.with_columns(_part=begins.fill_null(value=True).cum_sum())
        .group_by("_part", maintain_order=True)
        .agg(pl.col("stream_id", "ticker", "exchange_index", "seq").first(), pl.col("seq_end").last())
        .drop("_part")
        .sort("stream_id", "seq", "ticker")
    )
