"""Reads an hour of one gatherer, once: its rows go to files, and what its streams claim and checkpoint is found.

Everything is read in one snapshot on one connection. Of the rows no more than a few batches are in memory at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl

from kalshi_platform.deduplicator.coverage.checkpoint_reader import read_checkpoints
from kalshi_platform.deduplicator.coverage.claims import ClaimedIntervals, claim_followed
from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS, pair_snapshots
from kalshi_platform.deduplicator.coverage.streams.feed_scan import REGRESSIONS
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import clip_to_range, merge_segments
from kalshi_platform.deduplicator.coverage.streams.snapshot_reader import read_checks
from kalshi_platform.deduplicator.coverage.streams.stream_window import (
    DeltaBatch,
    StreamWindow,
    WindowReader,
    find_streams,
)
from kalshi_platform.deduplicator.merge.hour_files import OTHER_TABLES, HourFiles
from kalshi_platform.deduplicator.merge.market_buckets import MarketBuckets
from kalshi_platform.deduplicator.merge.source import find_dropped_until, find_incomplete_tables, read_between
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.market.intervals import Interval, intersection, union
from kalshi_platform.market.names import LONGEST_NAME
from kalshi_platform.market.parts import MarketPart
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

_SQL = load(Path(__file__).with_name("queries.sql"))

CLAIMS = {"ticker": pl.String, "stream_id": pl.Int64, "from_us": pl.Int64, "to_us": pl.Int64}
HELD = {"stream_id": pl.Int64, "seq_to": pl.Int64, "deltas": pl.Int64}
BOOK_TABLES = frozenset({"orderbook_deltas", "orderbook_snapshots"})
"""Tables that claims, checkpoints and run checks are made of."""


class GathererHour(NamedTuple):
    """What one gatherer can say of an hour.

    `claims`: columns of CLAIMS. `regressions`: stream_id and those of REGRESSIONS. `run_checks`: those of RUN_CHECKS.
    `streams`: all that the gatherer could speak for; what production knows of others stays as it is. `may_grow`: a
    stream that is still open has shown nothing later than the hour, or may still get a snapshot that proves more of it,
    so that more may be claimed later.
    `held`: columns of HELD. `unchecked`: streams of which a run check could not be made, because rows are gone.
    `incomplete`: tables of which less is there than the ledger recorded; where that concerns books nothing is claimed.
    `ledger_streams`: all streams that the ledger knows.
    """

    claims: pl.DataFrame
    regressions: pl.DataFrame
    run_checks: pl.DataFrame
    streams: frozenset[int]
    may_grow: bool = False
    held: pl.DataFrame = pl.DataFrame(schema=HELD)
    unchecked: frozenset[int] = frozenset()
    incomplete: frozenset[str] = frozenset()
    ledger_streams: frozenset[int] = frozenset()

    def without_streams(self, stream_ids: frozenset[int]) -> GathererHour:
        """Return the same as if these streams had not been read."""
        rest = ~pl.col("stream_id").is_in(sorted(stream_ids))
        return self._replace(
            claims=self.claims.filter(rest),
            regressions=self.regressions.filter(rest),
            run_checks=self.run_checks.filter(rest),
            held=self.held.filter(rest),
            streams=self.streams - stream_ids,
        )


class HourQuestion(NamedTuple):
    """What to read of a gatherer: the hour [low, high) in µs, of the markets of the part that `markets` has.

    `known`: stream_id, seq, ticker of snapshots that were checkpointed in earlier hours. `rows_at_once`: how many rows
    may be in memory to locate checkpoints.
    """

    edges: Interval
    max_out_of_orderness_us: int
    markets: MarketBuckets
    known: pl.DataFrame
    rows_at_once: int


def read_gatherer_hour(source: GathererSource, question: HourQuestion, files: HourFiles) -> GathererHour:
    """Read an hour of `source`; its rows go to `files`. Raises DatabaseUnavailable."""
    low, high = map(datetime_from_us, question.edges)

    def keep(batch: DeltaBatch) -> None:
        files.append_deltas(batch.rows, batch.market, batch.exchange_us)

    with arrow_snapshot(source.timeseries_url) as snapshot:
        incomplete = find_incomplete_tables(snapshot, low, high)
        is_whole = not incomplete & BOOK_TABLES
        bound_us = question.max_out_of_orderness_us
        reader = WindowReader(snapshot, question.edges, bound_us, question.markets, files.folder / "times")
        try:
            stream_ids = find_streams(snapshot, low, high) if is_whole else []
            reader.scan(stream_ids, keep)
            found = (
                _read_streams(source.name, snapshot, question, reader, stream_ids, files)
                if is_whole
                else GathererHour(_empty(CLAIMS), _empty(_REGRESSIONS), _empty(RUN_CHECKS), streams=frozenset())
            )
        finally:
            reader.close()
        for table in OTHER_TABLES:
            for rows in read_between(snapshot, table, low, high):
                files.append_rows(table, rows)
    return found._replace(incomplete=incomplete)


def read_claims(
    source: GathererSource, low: datetime, high: datetime, max_out_of_orderness_us: int
) -> ClaimedIntervals:
    """Return what the streams of `source` claim of [low, high). Raises DatabaseUnavailable.

    Ledger and rows are read in one snapshot.
    """
    edges = (us_from_datetime(low), us_from_datetime(high))
    found: dict[str, list[Interval]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="kalshi-claims-") as folder,
        arrow_snapshot(source.timeseries_url) as snapshot,
    ):
        reader = WindowReader(snapshot, edges, max_out_of_orderness_us, MarketBuckets(), Path(folder) / "times")
        try:
            stream_ids = find_streams(snapshot, low, high)
            reader.scan(stream_ids, lambda _: None)
            for stream_id in stream_ids:
                for ticker, low_us, high_us in _claim(reader.window(stream_id), edges, max_out_of_orderness_us):
                    found.setdefault(ticker, []).append((low_us, high_us))
        finally:
            reader.close()
    return {ticker: union(intervals) for ticker, intervals in sorted(found.items())}


_REGRESSIONS = {"stream_id": pl.Int64, **REGRESSIONS}


def _read_streams(
    gatherer: str,
    snapshot: ArrowSnapshot,
    question: HourQuestion,
    reader: WindowReader,
    stream_ids: list[int],
    files: HourFiles,
) -> GathererHour:
    edges, bound_us, part = question.edges, question.max_out_of_orderness_us, question.markets.part
    claims, regressions, checks = [_empty(CLAIMS)], [_empty(_REGRESSIONS)], [_empty(RUN_CHECKS)]
    held: list[tuple[int, int, int]] = []
    unchecked: set[int] = set()
    known = snapshot.table(_SQL["read_streams"]).to_pylist()
    still_open = {row["stream_id"] for row in known if row["open"]}
    gone, may_grow = set(), False
    for stream_id in stream_ids:
        window = reader.window(stream_id)
        if not window.whole:
            gone.add(stream_id)
            continue
        shown = window.segments.filter(pl.col("high_us") >= edges[1] + bound_us).height > 0
        may_grow |= stream_id in still_open and (window.pending or not shown)
        rows = [(ticker, stream_id, *each) for ticker, *each in _claim(window, edges, bound_us) if part.holds(ticker)]
        claims.append(pl.DataFrame(rows, schema=CLAIMS, orient="row"))
        held.append(_count_held(window, edges))
        mine = window.feed.regressions.filter(_of_part(part) | (pl.col("ticker") == ""))
        regressions.append(mine.select(pl.lit(stream_id, pl.Int64).alias("stream_id"), *REGRESSIONS))
        made, whole = _check_runs(snapshot, window, edges, part)
        checks.append(made)
        if not whole:
            unchecked.add(stream_id)
    ledger_streams = frozenset(row["stream_id"] for row in known)
    for checkpoints in read_checkpoints(
        snapshot, gatherer, edges, question.known, bound_us, question.rows_at_once, of_part=_of_part(part)
    ):
        files.append_checkpoints(_filter_long_names([checkpoints]))
    return GathererHour(
        _filter_long_names(claims), _filter_long_names(regressions), _filter_long_names(checks), ledger_streams - gone,
        may_grow, pl.DataFrame(held, schema=HELD, orient="row"), frozenset(unchecked), ledger_streams=ledger_streams,
    )  # fmt: skip


def _claim(window: StreamWindow, edges: Interval, max_out_of_orderness_us: int) -> Iterator[tuple[str, int, int]]:
    """What one stream claims within [low, high): ticker, from, to."""
    found = claim_followed(window.followed, window.feed, max_out_of_orderness_us, window.withdrawn)
    for ticker, intervals in found.items():
        for low, high in intersection(intervals, [edges]):
            yield ticker, low, high


def _count_held(window: StreamWindow, edges: Interval) -> tuple[int, int, int]:
    inside = window.segments.filter((pl.col("low_us") < edges[1]) & (pl.col("high_us") >= edges[0]))
    return window.stream_id, int(inside["seq_to"].max() or 0), window.feed.rows_within  # type: ignore[arg-type]


def _check_runs(
    snapshot: ArrowSnapshot, window: StreamWindow, edges: Interval, part: MarketPart
) -> tuple[pl.DataFrame, bool]:
    """The checks of the stream that touch the hour, and whether none of them was left out because rows are gone."""
    every = pair_snapshots(
        clip_to_range(window.book_subscriptions, merge_segments(window.segments)), window.segments, edges
    ).filter(_of_part(part))
    if every.is_empty():
        return _empty(RUN_CHECKS), True
    found = _filter_undropped(snapshot, every, edges)
    if found.is_empty():
        return _empty(RUN_CHECKS), False
    made = read_checks(snapshot, window.stream_id, found)
    return made, made.height == every.height


def _filter_undropped(snapshot: ArrowSnapshot, found: pl.DataFrame, edges: Interval) -> pl.DataFrame:
    """Those pairs whose deltas are all there, as far as they lie before the hour, which was looked at as a whole."""
    earliest: int = found["low_us"].min()  # type: ignore[assignment]
    if earliest >= edges[0]:
        return found
    until = find_dropped_until(snapshot, datetime_from_us(earliest), datetime_from_us(edges[0]))
    return found if until is None else found.filter(pl.col("low_us") >= us_from_datetime(until))


def _of_part(part: MarketPart) -> pl.Expr:
    """Whether a row's ticker belongs to a part of the markets."""
    if part.total == 1:
        return pl.lit(value=True)
    return pl.col("ticker").cast(pl.String).map_elements(part.holds, return_dtype=pl.Boolean)


def _empty(schema: dict[str, pl.DataType] | dict[str, type[pl.DataType]]) -> pl.DataFrame:
    return pl.DataFrame(schema=schema)


def _filter_long_names(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate, without markets that cannot be a key of production: their rows are quarantined."""
    return pl.concat(parts).filter(pl.col("ticker").str.len_chars() <= LONGEST_NAME)
