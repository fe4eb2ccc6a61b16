"""Reads a stretch of time of a gatherer's streams: ledgers, all deltas once, and what is around it that bounds claims.

A claim of a quiet market rests on frames that may lie far outside the stretch. Of each run that reaches beyond an end
of it the nearest commit beyond is read as well, which gives the same claims within as all of the stream would. The
times of all rows go to a temporary file, from which each stream is scanned in order of seq: no more than a block of its
rows is in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.coverage.streams.feed_scan import Feed, FeedScan, invalidated_between_segments
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import find_followed, merge_segments, places_of
from kalshi_platform.deduplicator.coverage.streams.stream_ledger import CLOCKS_APART, StreamLedger
from kalshi_platform.deduplicator.coverage.streams.unknown_frames import read_verified_ledger
from kalshi_platform.deduplicator.merge.bucket_file import BucketFile
from kalshi_platform.deduplicator.merge.market_buckets import Ints, MarketBuckets
from kalshi_platform.market.intervals import Interval
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot

_SQL = load(Path(__file__).parents[1] / "queries.sql")

# Frames around the stretch that are read in any case, in margins.
AROUND_MARGINS = 5
# Where several feeds share a stream, the commits of an end that are looked through for each of them.
_SEVERAL_FEEDS = 50
# Rows of a stream are scanned in blocks of so many numbers.
_BLOCK_BITS = 16
_STREAM_BITS = 40
_BATCH_BYTES = 8 * 1024 * 1024
_TIMES = pa.schema([("seq", pa.int64()), ("us", pa.int64()), ("market", pa.int32())])


class StreamWindow(NamedTuple):
    """One stream. `followed`: spans in which it followed a market, of which `feed` says how far they may be claimed.

    `withdrawn`: what time regressions between commits invalidate of all claims. `whole`: False where the ledger speaks
    of rows that are gone (retention has dropped them), so that nothing can be said any more. `pending`: whether a
    snapshot that is still to come may prove more.
    """

    stream_id: int
    segments: pl.DataFrame
    book_subscriptions: pl.DataFrame
    followed: pl.DataFrame
    feed: Feed
    withdrawn: list[Interval]
    whole: bool
    pending: bool = False


class DeltaBatch(NamedTuple):
    """Deltas as they were read, with their markets' numbers and times."""

    rows: pa.RecordBatch
    market: Ints
    exchange_us: Ints


def find_streams(snapshot: ArrowSnapshot, low: datetime, high: datetime) -> list[int]:
    """Streams whose deltas reach into [low, high), or over it.

    Streams that were over before, or begin after it, are passed over without a look at their ledger. A replay sends
    deltas from long before the stream was opened: where ours would be too late, the time of its first delta decides.
    """
    found = snapshot.table(
        # Each of these looks at one end of an index, however long the stream is.
        _SQL["find_streams"],
        (low, high, low - CLOCKS_APART, high + CLOCKS_APART),
    )
    return [int(value) for value in found.column(0).to_pylist()]


class WindowReader:
    """Reads the streams `stream_ids` of one gatherer within [low, high) and around it, in one snapshot.

    First scan(), once; then window() for each stream. `times`: a new file for the times of rows.
    """

    def __init__(
        self,
        snapshot: ArrowSnapshot,
        edges: Interval,
        max_out_of_orderness_us: int,
        markets: MarketBuckets,
        times: Path,
    ) -> None:
        around = AROUND_MARGINS * max_out_of_orderness_us
        self._snapshot = snapshot
        self._edges = edges
        self._inner = (edges[0] - around, edges[1] + around)
        self._bound_us = max_out_of_orderness_us
        self._markets = markets
        self._times = BucketFile(times, _TIMES)
        self._stream_ids = np.empty(0, dtype=np.int64)
        self._seen: set[int] = set()

    def close(self) -> None:
        """Remove the file."""
        self._times.close()

    def scan(self, stream_ids: list[int], on_batch: Callable[[DeltaBatch], None]) -> None:
        """Read all deltas of the stretch and its margins, each once; keep the times of those of the streams."""
        self._stream_ids = np.array(sorted(stream_ids), dtype=np.int64)
        params = tuple(map(datetime_from_us, self._inner))
        for batch in self._snapshot.batches(_SQL["read_deltas_with_origin"], params, batch_bytes=_BATCH_BYTES):
            if batch.num_rows:
                found = self._number(batch)
                self._keep_times(found)
                on_batch(found)

    def window(self, stream_id: int) -> StreamWindow:
        """Read a stream's ledger, and what its rows say of its claims. Raises DatabaseUnavailable."""
        inner = self._inner
        (segments, book_subscriptions), pending = read_verified_ledger(self._snapshot, stream_id, inner)
        indices = StreamLedger(segments, book_subscriptions).indices
        edges = find_edge_segments(segments, inner, single=indices["exchange_index"].n_unique() <= 1)
        # The earliest and the latest time of a commit are those of rows.
        expected = (
            segments.filter(
                pl.any_horizontal(pl.col(each).is_between(*inner, closed="left") for each in ("low_us", "high_us"))
            ).height
            > 0
        )
        whole = stream_id in self._seen or not expected
        for seq_from, seq_to, first_us, last_us in edges.select("seq_from", "seq_to", "low_us", "high_us").iter_rows():
            whole = self._read_beyond(stream_id, (seq_from, seq_to), (first_us, last_us)) and whole
        followed = find_followed(book_subscriptions, segments)
        feed = self._scan_stream(stream_id, followed, indices)
        crossing = [
            step
            for step in invalidated_between_segments(segments, self._bound_us)
            if step[0] < inner[0] or step[1] > inner[1]
        ]
        return StreamWindow(stream_id, segments, book_subscriptions, followed, feed, crossing, whole, pending)

    def _number(self, batch: pa.RecordBatch) -> DeltaBatch:
        market = self._markets.number_column(batch.column("ticker"))
        return DeltaBatch(batch, market, batch.column("exchange_ts").cast(pa.int64()).to_numpy())

    def _keep_times(self, found: DeltaBatch) -> None:
        stream, seq = (found.rows.column(name).to_numpy() for name in ("stream_id", "seq"))
        if not len(self._stream_ids):
            return
        place = np.minimum(np.searchsorted(self._stream_ids, stream), len(self._stream_ids) - 1)
        known = self._stream_ids[place] == stream
        self._seen.update(np.unique(stream[known]).tolist())
        keys = np.where(known, (place << _STREAM_BITS) + (seq >> _BLOCK_BITS), -1)
        self._times.append(
            pa.record_batch([seq, found.exchange_us, found.market.astype(np.int32)], schema=_TIMES), keys
        )

    def _read_beyond(self, stream_id: int, seqs: Interval, times_us: Interval) -> bool:
        """Read the rows of a commit outside of the stretch; return whether there are any."""
        params = (stream_id, *map(datetime_from_us, times_us), *seqs, *map(datetime_from_us, self._inner))
        found = False
        for batch in self._snapshot.batches(_SQL["read_deltas_beyond"], params, batch_bytes=_BATCH_BYTES):
            if batch.num_rows:
                self._keep_times(self._number(batch))
                found = True
        return found

    def _scan_stream(self, stream_id: int, followed: pl.DataFrame, indices: pl.DataFrame) -> Feed:
        market = self._markets.number(indices["ticker"])
        tickers = self._markets.tickers
        feeds = np.full(len(tickers), -1, dtype=np.int32)
        feeds[market] = indices["exchange_index"].cast(pl.Int32).to_numpy()
        scan = FeedScan(places_of(followed), feeds, self._bound_us, self._edges)
        first = int(np.searchsorted(self._stream_ids, stream_id)) << _STREAM_BITS
        for key in self._times.keys_between(first, first + (1 << _STREAM_BITS)):
            rows = self._times.read(key)
            scan.add(*(rows.column(name).to_numpy().astype(np.int64, copy=False) for name in _TIMES.names))
        return scan.finish(tickers)


def find_edge_segments(segments: pl.DataFrame, inner: Interval, *, single: bool) -> pl.DataFrame:
    """Commits whose rows beyond `inner` matter: those that reach over an end of it, and the nearest beyond, by run.

    `segments`: stream_id, seq_from, seq_to, low_us, high_us (null without deltas). Pure.
    """
    low, high = inner
    of_runs = merge_segments(segments).select(pl.col("seq_from").alias("_run"))
    timed = (
        segments.filter(pl.col("low_us").is_not_null())
        .sort("seq_from")
        .join_asof(of_runs.sort("_run"), left_on="seq_from", right_on="_run", check_sortedness=False)
    )
    of_run = (pl.col("low_us").min().over("_run") < high) & (pl.col("high_us").max().over("_run") >= low)
    near = timed.filter(of_run)
    several = 1 if single else _SEVERAL_FEEDS
    before = near.filter(pl.col("low_us") < low).group_by("_run", maintain_order=True).tail(several)
    after = near.filter(pl.col("high_us") >= high).group_by("_run", maintain_order=True).head(several)
    over = near.filter(
        ((pl.col("low_us") < low) & (pl.col("high_us") >= low))
        | ((pl.col("low_us") < high) & (pl.col("high_us") >= high))
    )
    columns = near.columns
    return pl.concat([before.select(columns), after.select(columns), over]).unique("seq_from").sort("seq_from")
