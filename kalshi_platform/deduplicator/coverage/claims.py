"""Derives what one gatherer claims to hold completely, market by market, from its ledger and the times of its rows.

A book subscription claims complete_from < t < complete_until of its market (see checkpoints.py): the stream has shown
by later times that nothing before them can still come. Where a newer snapshot continues a book subscription the two are
one. A time regression of more than max_out_of_orderness breaks what the two rest on, so the claims around it are
withdrawn (see time_regressions.py). Segments of the ledger were committed with their rows, so a claim is true whenever
it can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from kalshi_platform.deduplicator.coverage.checkpoints import watermarks
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import clip_to_range, merge_segments
from kalshi_platform.deduplicator.coverage.streams.stream_window import StreamWindow, find_streams, read_window
from kalshi_platform.deduplicator.coverage.streams.time_regressions import invalidated_intervals
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.market.intervals import Interval, intersection, subtract, union
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.storage.read import arrow_snapshot

ClaimedIntervals = Mapping[str, list[Interval]]
"""Ticker → claimed intervals, as `market.intervals.union` gives it."""


def read_claims(
    source: GathererSource, low: datetime, high: datetime, max_out_of_orderness_us: int
) -> ClaimedIntervals:
    """Return what the streams of `source` claim of [low, high). Raises DatabaseUnavailable.

    Ledger and rows are read in one snapshot; the rows of one stream's window are held in memory.
    """
    edges = (us_from_datetime(low), us_from_datetime(high))
    found: dict[str, list[Interval]] = {}
    with arrow_snapshot(source.timeseries_url) as snapshot:
        for stream_id in find_streams(snapshot, low, high):
            window = read_window(snapshot, stream_id, *edges, max_out_of_orderness_us)
            for ticker, intervals in find_claims_within(window, edges, max_out_of_orderness_us).items():
                found.setdefault(ticker, []).extend(intervals)
    return {ticker: union(intervals) for ticker, intervals in sorted(found.items())}


def find_claims_within(
    window: StreamWindow, edges: Interval, max_out_of_orderness_us: int
) -> dict[str, list[Interval]]:
    """Return what one stream claims within [low, high), by ticker. Pure."""
    found = claim_intervals(
        window.book_subscriptions, window.segments, window.deltas, max_out_of_orderness_us, window.withdrawn
    )
    inside = {ticker: intersection(intervals, [edges]) for ticker, intervals in found.items()}
    return {ticker: intervals for ticker, intervals in inside.items() if intervals}


def claim_intervals(
    book_subscriptions: pl.DataFrame,
    segments: pl.DataFrame,
    deltas: pl.DataFrame,
    max_out_of_orderness_us: int,
    withdrawn: Sequence[Interval] = (),
) -> dict[str, list[Interval]]:
    """Return the claims of one stream. Pure.

    `book_subscriptions` and `segments` as for seq_ranges.py; `deltas`: seq, exchange_us, ticker, exchange_index. Deltas
    may be left out at either end: that only makes the claims shorter. `withdrawn` is claimed of no market.
    """
    followed = join_continued(clip_to_range(book_subscriptions, merge_segments(segments)))
    if followed.is_empty() or deltas.is_empty():
        return {}
    read_to = int(followed["seq_end"].max())  # type: ignore[arg-type]
    bounded = watermarks(followed, deltas, read_to, max_out_of_orderness_us).filter(
        pl.col("complete_from_us") + 1 < pl.col("complete_until_us")
    )
    invalid = {
        index: union([*parts, *withdrawn])
        for index, parts in invalidated_intervals(deltas, max_out_of_orderness_us).items()
    }
    elsewhere = union(withdrawn)
    found: dict[str, list[Interval]] = {}
    for ticker, index, start, end in bounded.select(
        "ticker", "exchange_index", "complete_from_us", "complete_until_us"
    ).iter_rows():
        found.setdefault(ticker, []).extend(subtract([(start + 1, end)], invalid.get(index, elsewhere)))
    return {ticker: union(parts) for ticker, parts in found.items() if parts}


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
