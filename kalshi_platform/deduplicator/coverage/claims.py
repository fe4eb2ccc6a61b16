"""Derives what one gatherer claims to hold completely, market by market, from its ledger and the times of its rows.

A book subscription claims complete_from < t < complete_until of its market (see checkpoints.py): the stream has shown
by later times that nothing before them can still come. Where a newer snapshot continues a book subscription the two are
one. A time regression of more than max_out_of_orderness breaks what the two rest on, so the claims around it are
withdrawn (see time_regressions.py). Segments of the ledger were committed with their rows, so a claim is true whenever
it can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from kalshi_platform.deduplicator.coverage.checkpoints import watermarks
from kalshi_platform.deduplicator.coverage.multiset_hash import Hashes, running_sums
from kalshi_platform.deduplicator.coverage.streams.feed_scan import Feed, Ints, scan_frame
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import find_followed, places_of
from kalshi_platform.deduplicator.coverage.timeline import TimelineKeys
from kalshi_platform.market.intervals import Interval, subtract, union

ClaimedIntervals = Mapping[str, list[Interval]]
"""Ticker → claimed intervals, as `market.intervals.union` gives it."""
_EVER: Interval = (-(1 << 62), 1 << 62)
_ROWS_AT_ONCE = 1 << 18


def claim_intervals(
    book_subscriptions: pl.DataFrame,
    segments: pl.DataFrame,
    deltas: pl.DataFrame,
    max_out_of_orderness_us: int,
    withdrawn: Sequence[Interval] = (),
    rows_at_once: int = _ROWS_AT_ONCE,
) -> dict[str, list[Interval]]:
    """Return the claims of one stream whose deltas are in memory. Pure.

    `book_subscriptions` and `segments` as for seq_ranges.py; `deltas`: seq, exchange_us, ticker, exchange_index. Deltas
    may be left out at either end: that only makes the claims shorter. `withdrawn` is claimed of no market.
    """
    followed = find_followed(book_subscriptions, segments)
    if followed.is_empty() or deltas.is_empty():
        return {}
    feed = scan_frame(deltas, places_of(followed), max_out_of_orderness_us, _EVER, rows_at_once)
    return claim_followed(followed, feed, max_out_of_orderness_us, withdrawn)


def claim_followed(
    followed: pl.DataFrame, feed: Feed, max_out_of_orderness_us: int, withdrawn: Sequence[Interval] = ()
) -> dict[str, list[Interval]]:
    """Return the claims of one stream, by ticker. Pure."""
    if followed.is_empty() or feed.times.is_empty():
        return {}
    read_to = int(followed["seq_end"].max())  # type: ignore[arg-type]
    bounded = watermarks(followed, feed.times, read_to, max_out_of_orderness_us).filter(
        pl.col("complete_from_us") + 1 < pl.col("complete_until_us")
    )
    invalid = {index: union([*parts, *withdrawn]) for index, parts in feed.invalid.items()}
    elsewhere = union(withdrawn)
    found: dict[str, list[Interval]] = {}
    for ticker, index, start, end in bounded.select(
        "ticker", "exchange_index", "complete_from_us", "complete_until_us"
    ).iter_rows():
        found.setdefault(ticker, []).extend(subtract([(start + 1, end)], invalid.get(index, elsewhere)))
    return {ticker: union(parts) for ticker, parts in found.items() if parts}


def count_claims(
    claims: pl.DataFrame, market: Ints, timeline: TimelineKeys, keys: Ints, contents: Hashes
) -> pl.DataFrame:
    """Add how many rows one stream holds within each of its claims, and the sum of their fingerprints. Pure.

    `claims`: from_us, to_us; `market`: of each. `keys` (of the timeline) and `contents`: of the stream's rows.
    """
    order = np.argsort(keys, kind="stable")
    ordered, sums = keys[order], running_sums(contents[order])
    low, high = (
        np.searchsorted(ordered, timeline.key(market, claims[name].to_numpy()), side="left")
        for name in ("from_us", "to_us")
    )
    return claims.with_columns(
        rows=pl.Series(high - low, dtype=pl.Int64), content=pl.Series((sums[high] - sums[low]).view(np.int64))
    )
