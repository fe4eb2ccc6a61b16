"""Reads the checkpoints of one hour from one gatherer: its ledger, and as much of its streams as they need.

A stream is read by number from a snapshot onwards, in
windows that grow until every snapshot has its complete_from or can have none; the segments say where a window lies in
time. So it does not matter in which hour the snapshot, or the frames that locate it, were received.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from kalshi_platform.deduplicator.coverage.checkpoints import fold_checkpoints, locate
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import clip_to_range, merge_segments
from kalshi_platform.deduplicator.coverage.streams.snapshot_reader import read_levels
from kalshi_platform.deduplicator.coverage.streams.stream_window import AROUND_MARGINS, find_streams
from kalshi_platform.deduplicator.coverage.streams.unknown_frames import read_verified_ledger
from kalshi_platform.deduplicator.merge.source import find_dropped_until
from kalshi_platform.market.fold import LEVEL_TYPES
from kalshi_platform.market.intervals import Interval
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot

_SQL = load(Path(__file__).with_name("queries.sql"))

# A few seconds of their stream are enough to locate most snapshots.
_FIRST_WINDOW = 20_000
_BOOKS_AT_ONCE = 250


def read_checkpoints(
    snapshot: ArrowSnapshot,
    gatherer: str,
    edges: Interval,
    known: pl.DataFrame,
    max_out_of_orderness_us: int,
    rows_at_once: int,
    *,
    of_part: pl.Expr | None = None,
) -> Iterator[pl.DataFrame]:
    """Read the checkpoints of a gatherer in [low, high), as rows of `book_checkpoints`. Raises DatabaseUnavailable.

    `known`: (stream_id, seq, ticker) of snapshots that were checkpointed in earlier hours; they are not read again.
    `of_part`: which markets are wanted; None for all. Frames come in any order, each of some thousand books.
    """
    wanted = pl.lit(value=True) if of_part is None else of_part
    for stream_id in find_streams(
        snapshot, datetime_from_us(edges[0] - max_out_of_orderness_us), datetime_from_us(edges[1])
    ):
        for found in _read_stream(snapshot, stream_id, known, edges, max_out_of_orderness_us, rows_at_once, wanted):
            yield found.select(
                pl.from_epoch("complete_from_us", time_unit="us").dt.replace_time_zone("UTC").alias("checkpoint_ts"),
                "ticker",
                pl.lit(gatherer).alias("gatherer"),
                pl.lit(stream_id, pl.Int64).alias("stream_id"),
                "seq",
                *LEVEL_TYPES,
            )


def _read_stream(
    snapshot: ArrowSnapshot,
    stream_id: int,
    known: pl.DataFrame,
    hour_us: tuple[int, int],
    max_out_of_orderness_us: int,
    at_once: int,
    wanted: pl.Expr,
) -> Iterator[pl.DataFrame]:
    around = AROUND_MARGINS * max_out_of_orderness_us
    ledger = read_verified_ledger(snapshot, stream_id, (hour_us[0] - around, hour_us[1] + around)).ledger
    segments, indices = ledger.segments, ledger.indices
    candidates = (
        clip_to_range(ledger.book_subscriptions, merge_segments(segments))
        .filter(wanted)
        .join(known, on=["stream_id", "seq", "ticker"], how="anti")
    )
    candidates = _filter_possible(
        candidates, segments, hour_us, max_out_of_orderness_us, single=indices["exchange_index"].n_unique() == 1
    )
    candidates = _filter_undropped(snapshot, candidates, segments, hour_us[0])
    for starts, deltas in _locate_all(
        snapshot, stream_id, candidates, segments, indices, max_out_of_orderness_us, at_once
    ):
        inside = starts.filter((pl.col("complete_from_us") >= hour_us[0]) & (pl.col("complete_from_us") < hour_us[1]))
        # A connection that begins has a snapshot of every market, and books may have thousands of levels.
        for some in inside.iter_slices(_BOOKS_AT_ONCE):
            yield fold_checkpoints(some, read_levels(snapshot, stream_id, some), deltas)


def _filter_possible(
    candidates: pl.DataFrame,
    segments: pl.DataFrame,
    hour_us: tuple[int, int],
    max_out_of_orderness_us: int,
    *,
    single: bool,
) -> pl.DataFrame:
    """Leave out snapshots whose complete_from cannot lie in the hour, going by the segments."""
    timed = segments.filter(pl.col("low_us").is_not_null()).sort("seq_from")
    low, high = hour_us
    possible = _with_later_times(candidates, timed).filter(
        (pl.col("_later_low") < high) & (pl.col("_later_high") >= low)
    )
    if single:
        # All deltas are the market's feed, so that the first segment after the snapshot bounds complete_from from
        # above.
        after = timed.select(
            pl.col("seq_from").alias("_from"), pl.col("seq_to").alias("_to"), pl.col("high_us").alias("_high")
        )
        possible = possible.join_asof(
            after,
            left_on="seq",
            right_on="_from",
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        ).filter(
            ~((pl.col("_to") <= pl.col("seq_end")) & (pl.col("_high") + max_out_of_orderness_us < low)).fill_null(
                value=False
            )
        )
    return possible.select(candidates.columns)


def _with_later_times(candidates: pl.DataFrame, timed: pl.DataFrame) -> pl.DataFrame:
    """Add the earliest and the latest time (_later_low, _later_high) of the commits that came after each snapshot."""
    later = timed.select(
        pl.col("seq_to").alias("_seq_to"),
        pl.col("low_us").reverse().cum_min().reverse().alias("_later_low"),
        pl.col("high_us").reverse().cum_max().reverse().alias("_later_high"),
    )
    return candidates.sort("seq").join_asof(
        later.sort("_seq_to"), left_on="seq", right_on="_seq_to", strategy="forward",
        allow_exact_matches=False, check_sortedness=False,
    )  # fmt: skip


def _filter_undropped(
    snapshot: ArrowSnapshot, candidates: pl.DataFrame, segments: pl.DataFrame, low_us: int
) -> pl.DataFrame:
    """Leave out snapshots after which deltas are gone: without them their book comes out wrong."""
    followed = _with_later_times(candidates, segments.filter(pl.col("low_us").is_not_null()).sort("seq_from"))
    earliest = followed["_later_low"].min()
    if earliest is None or int(earliest) >= low_us:  # type: ignore[arg-type]
        return candidates
    until = find_dropped_until(snapshot, datetime_from_us(int(earliest)), datetime_from_us(low_us))  # type: ignore[arg-type]
    if until is None:
        return candidates
    return followed.filter(pl.col("_later_low") >= us_from_datetime(until)).select(candidates.columns)


def _locate_all(
    snapshot: ArrowSnapshot,
    stream_id: int,
    candidates: pl.DataFrame,
    segments: pl.DataFrame,
    indices: pl.DataFrame,
    max_out_of_orderness_us: int,
    at_once: int,
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Read on from the first candidate until all are located; yield the located ones and the deltas read for them."""
    pending = candidates
    held: pl.DataFrame | None = None
    position = 0
    window = min(_FIRST_WINDOW, at_once)
    while pending.height:
        first = int(pending["seq"].min())  # type: ignore[arg-type]
        if first > position:
            # What lies between was read for snapshots that are located.
            position, window = first, min(_FIRST_WINDOW, at_once)
        ahead = segments.filter(pl.col("seq_to") > position)
        if ahead.is_empty():
            return
        frames = (ahead["seq_to"] - ahead["seq_from"] + 1).cum_sum()
        ahead = ahead.head(max(1, int((frames <= window).sum())))
        until = int(ahead["seq_to"].max())  # type: ignore[arg-type]
        new = _read_deltas(snapshot, stream_id, position, until, ahead, indices)
        if held is not None:
            indices_left = pending["exchange_index"].unique().implode()
            held = held.filter((pl.col("seq") > first) & pl.col("exchange_index").is_in(indices_left))
            new = pl.concat([held, new])
        held = new
        located = locate(pending.filter(pl.col("seq") < until), held, until, max_out_of_orderness_us)
        if located.found.height:
            yield located.found, held
        pending = pl.concat([located.pending, pending.filter(pl.col("seq") >= until)])
        position = until
        window = min(window * 2, at_once)


def _read_deltas(
    snapshot: ArrowSnapshot, stream_id: int, after: int, until: int, segments: pl.DataFrame, indices: pl.DataFrame
) -> pl.DataFrame:
    low, high = segments["exchange_ts_min"].min(), segments["exchange_ts_max"].max()
    rows = snapshot.table(_SQL["read_deltas_by_seq"], (stream_id, after, until, low, high))
    return (
        pl.DataFrame(pl.from_arrow(rows))
        .join(indices, on="ticker")
        .select(
            "seq", pl.col("exchange_ts").dt.epoch("us").alias("exchange_us"), "ticker", "exchange_index", "side",
            pl.col("price_e4").cast(pl.Int32), "delta_e2",
        )
    )  # fmt: skip
