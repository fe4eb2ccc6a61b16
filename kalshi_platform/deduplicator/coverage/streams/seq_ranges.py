"""Merges a ledger's segments into runs of contiguous seq, and clips book subscriptions to them. Pure.

Frames are polars frames; `seq_*` are inclusive. Touching segments form a run, whatever commits brought them.
"""

from __future__ import annotations

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
