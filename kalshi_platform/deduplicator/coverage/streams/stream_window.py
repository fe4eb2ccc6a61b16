"""Reads a stretch of time of one stream: its ledger, its deltas, and the rows around it that decide how far claims go.

A claim of a quiet market rests on frames that may lie far outside the stretch. Of each run that reaches beyond an end
of it the nearest commit beyond is read as well, which gives the same claims within as all of the stream would.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.coverage.streams.seq_ranges import merge_segments
from kalshi_platform.deduplicator.coverage.streams.stream_ledger import CLOCKS_APART, StreamLedger
from kalshi_platform.deduplicator.coverage.streams.time_regressions import invalidated_between_segments
from kalshi_platform.deduplicator.coverage.streams.unknown_frames import read_verified_ledger
from kalshi_platform.market.intervals import Interval
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot

_SQL = load(Path(__file__).parents[1] / "queries.sql")

# Frames around the stretch that are read in any case, in margins.
AROUND_MARGINS = 5
# Where several feeds share a stream, the commits of an end that are looked through for each of them.
_SEVERAL_FEEDS = 50
COLUMNS = ("seq", "exchange_us", "ticker", "exchange_index", "side", "price_e4", "delta_e2", "occurrence")


class StreamWindow(NamedTuple):
    """`deltas`: the rows of COLUMNS, tickers and sides as enumerations; more than the stretch, at both ends.

    `withdrawn`: what time regressions between commits invalidate of all claims. `whole`: False where the ledger speaks
    of rows that are gone (retention has dropped them), so that nothing can be said any more. `pending`: whether a
    snapshot that is still to come may prove more.
    """

    stream_id: int
    segments: pl.DataFrame
    book_subscriptions: pl.DataFrame
    deltas: pl.DataFrame
    withdrawn: list[Interval]
    whole: bool
    pending: bool = False


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


def read_window(
    snapshot: ArrowSnapshot, stream_id: int, low_us: int, high_us: int, max_out_of_orderness_us: int
) -> StreamWindow:
    """Read what is needed to know the claims of [low, high). Raises DatabaseUnavailable."""
    around = AROUND_MARGINS * max_out_of_orderness_us
    inner = (low_us - around, high_us + around)
    (segments, book_subscriptions), pending = read_verified_ledger(snapshot, stream_id, inner)
    tickers = pl.Enum(book_subscriptions["ticker"].unique().sort())
    book_subscriptions = book_subscriptions.with_columns(pl.col("ticker").cast(tickers))
    indices = StreamLedger(segments, book_subscriptions).indices
    edges = find_edge_segments(segments, inner, single=indices["exchange_index"].n_unique() <= 1)
    parts = [_EMPTY.with_columns(pl.col("ticker").cast(tickers)).join(indices, on="ticker").select(COLUMNS)]
    # The earliest and the latest time of a commit are those of rows.
    expected = (
        segments.filter(
            pl.any_horizontal(pl.col(each).is_between(*inner, closed="left") for each in ("low_us", "high_us"))
        ).height
        > 0
    )
    inside = _rows(snapshot, stream_id, indices, "read_deltas_within", inner)
    parts.extend(inside)
    whole = bool(inside) or not expected
    for seq_from, seq_to, first_us, last_us in edges.select("seq_from", "seq_to", "low_us", "high_us").iter_rows():
        beyond = _rows(
            snapshot, stream_id, indices,
            "read_deltas_beyond", (first_us, last_us), seq_from, seq_to, *map(datetime_from_us, inner),
        )  # fmt: skip
        whole = whole and bool(beyond)
        parts.extend(beyond)
    deltas = pl.concat(parts)
    crossing = [
        step
        for step in invalidated_between_segments(segments, max_out_of_orderness_us)
        if step[0] < inner[0] or step[1] > inner[1]
    ]
    return StreamWindow(stream_id, segments, book_subscriptions, deltas, crossing, whole, pending)


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


_SIDES = pl.Enum(["yes", "no"])
_EMPTY = pl.DataFrame(
    schema={
        "seq": pl.Int64, "exchange_us": pl.Int64, "ticker": pl.String, "side": _SIDES, "price_e4": pl.Int32,
        "delta_e2": pl.Int64, "occurrence": pl.Int32,
    }
)  # fmt: skip


def _rows(
    snapshot: ArrowSnapshot, stream_id: int, indices: pl.DataFrame, name: str, times_us: Interval, *params: object
) -> list[pl.DataFrame]:
    """Read deltas as frames of a few megabytes; those of markets without a book subscription are left out."""
    batches = snapshot.batches(_SQL[name], (stream_id, *map(datetime_from_us, times_us), *params))
    return list(_convert(batches, indices))


def _convert(batches: Iterator[pa.RecordBatch], indices: pl.DataFrame) -> Iterator[pl.DataFrame]:
    tickers = indices.schema["ticker"]
    for batch in batches:
        frame = pl.DataFrame(batch)
        if frame.height:
            rows = frame.with_columns(
                pl.col("exchange_ts").dt.epoch("us").alias("exchange_us"),
                pl.col("ticker").cast(tickers, strict=False),
                pl.col("side").cast(_SIDES),
                pl.col("price_e4").cast(pl.Int32),
                pl.col("occurrence").cast(pl.Int32),
            )
            yield rows.join(indices, on="ticker").select(COLUMNS)
