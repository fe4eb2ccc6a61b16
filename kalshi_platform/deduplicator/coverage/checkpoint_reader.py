"""Reads the checkpoints of one hour from one gatherer: its ledger, and as much of its streams as they need.

Everything is read in one snapshot of the gatherer's database. A stream is read by number from a snapshot onwards, in
windows that grow until every snapshot has its complete_from or can have none; the segments say where a window lies in
time. So it does not matter in which hour the snapshot, or the frames that locate it, were received.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import polars as pl

from kalshi_platform.deduplicator.coverage.checkpoints import fold_checkpoints, locate
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import clip_to_range, merge_segments
from kalshi_platform.deduplicator.coverage.streams.snapshot_reader import read_levels
from kalshi_platform.deduplicator.coverage.streams.stream_window import AROUND_MARGINS, find_streams
from kalshi_platform.deduplicator.coverage.streams.unknown_frames import read_verified_ledger
from kalshi_platform.deduplicator.merge.source import find_dropped_until
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.market.fold import LEVEL_TYPES
from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

_SQL = load(Path(__file__).with_name("queries.sql"))

# A few seconds of their stream are enough to locate most snapshots.
_FIRST_WINDOW = 20_000
_BOOKS_AT_ONCE = 2_000
_EMPTY = pl.DataFrame(pl.from_arrow(arrow_schema(PRODUCTION_TABLES["book_checkpoints"]).empty_table()))


def read_checkpoints(
    source: GathererSource, hour: datetime, known: pl.DataFrame, max_out_of_orderness_us: int, rows_at_once: int
) -> pl.DataFrame:
    """Return the checkpoints of `source` of the hour, as rows of `book_checkpoints`. Raises DatabaseUnavailable.

    `known`: (stream_id, seq, ticker) of snapshots that were checkpointed in earlier hours; they are not read again.
    """
    low_us = us_from_datetime(hour)
    high_us = low_us + 3_600_000_000
    with arrow_snapshot(source.timeseries_url) as snapshot:
        found = [
            _read_stream(snapshot, stream_id, known, (low_us, high_us), max_out_of_orderness_us, rows_at_once)
            for stream_id in find_streams(
                snapshot, datetime_from_us(low_us - max_out_of_orderness_us), datetime_from_us(high_us)
            )
        ]
    checkpoints = pl.concat(
        [_EMPTY.drop("gatherer", "checkpoint_ts").with_columns(complete_from_us=pl.lit(0, pl.Int64)).clear(), *found]
    )
    return checkpoints.select(
        pl.from_epoch("complete_from_us", time_unit="us").dt.replace_time_zone("UTC").alias("checkpoint_ts"),
        "ticker",
        pl.lit(source.name).alias("gatherer"),
        "stream_id",
        "seq",
        *LEVEL_TYPES,
    ).sort("checkpoint_ts", "ticker", "stream_id", "seq")


def find_known_streams(source: GathererSource, stream_ids: Collection[int]) -> frozenset[int]:
    """Return those of `stream_ids` that the gatherer's ledger knows; the others it can no longer speak for."""
    if not stream_ids:
        return frozenset()
    with arrow_snapshot(source.timeseries_url) as snapshot:
        found = snapshot.table(_SQL["find_known_streams"], (sorted(stream_ids),))
    return frozenset(int(value) for value in found.column(0).to_pylist())


def _read_stream(
    snapshot: ArrowSnapshot,
    stream_id: int,
    known: pl.DataFrame,
    hour_us: tuple[int, int],
    max_out_of_orderness_us: int,
    at_once: int,
) -> pl.DataFrame:
    around = AROUND_MARGINS * max_out_of_orderness_us
    ledger = read_verified_ledger(snapshot, stream_id, (hour_us[0] - around, hour_us[1] + around)).ledger
    segments, indices = ledger.segments, ledger.indices
    candidates = clip_to_range(ledger.book_subscriptions, merge_segments(segments)).join(
        known, on=["stream_id", "seq", "ticker"], how="anti"
    )
    candidates = _filter_possible(
        candidates, segments, hour_us, max_out_of_orderness_us, single=indices["exchange_index"].n_unique() == 1
    )
    candidates = _filter_undropped(snapshot, candidates, segments, hour_us[0])
    parts = [_EMPTY.drop("gatherer", "checkpoint_ts").with_columns(complete_from_us=pl.lit(0, pl.Int64)).clear()]
    for starts, deltas in _locate_all(
        snapshot, stream_id, candidates, segments, indices, max_out_of_orderness_us, at_once
    ):
        inside = starts.filter((pl.col("complete_from_us") >= hour_us[0]) & (pl.col("complete_from_us") < hour_us[1]))
        # A connection that begins has a snapshot of every market, and books may have thousands of levels.
        for some in inside.iter_slices(_BOOKS_AT_ONCE):
            levels = read_levels(snapshot, stream_id, some)
            parts.append(
                fold_checkpoints(some, levels, deltas)
                .with_columns(stream_id=pl.lit(stream_id, pl.Int64))
                .select(parts[0].columns)
            )
    return pl.concat(parts)


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
        position = max(position, first)
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
