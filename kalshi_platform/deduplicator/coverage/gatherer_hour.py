"""Reads an hour of one gatherer: what its streams claim, how much they hold there, and checks of their snapshots.

Ledger and rows of each stream are read in one snapshot; one stream's rows of the hour are held in memory at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from kalshi_platform.deduplicator.coverage.claims import find_claims_within
from kalshi_platform.deduplicator.coverage.multiset_hash import delta_hashes, row_fingerprints
from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS, pair_snapshots
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import clip_to_range, merge_segments
from kalshi_platform.deduplicator.coverage.streams.snapshot_reader import read_checks
from kalshi_platform.deduplicator.coverage.streams.stream_window import StreamWindow, find_streams, read_window
from kalshi_platform.deduplicator.coverage.streams.time_regressions import REGRESSIONS, measure_regressions
from kalshi_platform.deduplicator.coverage.timeline import Timeline
from kalshi_platform.deduplicator.merge.source import find_dropped_until, find_incomplete_tables
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.market.intervals import Interval
from kalshi_platform.market.names import LONGEST_NAME
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

_SQL = load(Path(__file__).with_name("queries.sql"))

CLAIMS = {"ticker": pl.String, "stream_id": pl.Int64, "from_us": pl.Int64, "to_us": pl.Int64, "rows": pl.Int64,
          "content": pl.Int64}  # fmt: skip


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
    """

    claims: pl.DataFrame
    regressions: pl.DataFrame
    run_checks: pl.DataFrame
    streams: frozenset[int]
    may_grow: bool = False
    held: pl.DataFrame = pl.DataFrame(schema=HELD)
    unchecked: frozenset[int] = frozenset()
    incomplete: frozenset[str] = frozenset()

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


def read_gatherer_hour(source: GathererSource, low_us: int, high_us: int, max_out_of_orderness_us: int) -> GathererHour:
    """Read the hour [low, high) of `source`. Raises DatabaseUnavailable."""
    edges = (low_us, high_us)
    claims, regressions, checks = (
        [_empty(CLAIMS)],
        [_empty({"stream_id": pl.Int64, **REGRESSIONS})],
        [_empty(RUN_CHECKS)],
    )
    held: list[tuple[int, int, int]] = []
    unchecked: set[int] = set()
    with arrow_snapshot(source.timeseries_url) as snapshot:
        incomplete = find_incomplete_tables(snapshot, datetime_from_us(low_us), datetime_from_us(high_us))
        if incomplete & BOOK_TABLES:
            parts = (claims[0], regressions[0], checks[0])
            return GathererHour(*parts, streams=frozenset(), incomplete=incomplete)
        known = snapshot.table(_SQL["read_streams"]).to_pylist()
        still_open = {row["stream_id"] for row in known if row["open"]}
        gone, may_grow = set(), False
        for stream_id in find_streams(snapshot, datetime_from_us(low_us), datetime_from_us(high_us)):
            window = read_window(snapshot, stream_id, low_us, high_us, max_out_of_orderness_us)
            if not window.whole:
                gone.add(stream_id)
                continue
            shown = window.segments.filter(pl.col("high_us") >= high_us + max_out_of_orderness_us).height > 0
            may_grow |= stream_id in still_open and (window.pending or not shown)
            claims.append(count_claims(window, edges, max_out_of_orderness_us))
            held.append(_count_held(window, edges))
            measured = measure_regressions(window.deltas, edges)
            regressions.append(measured.select(pl.lit(stream_id, pl.Int64).alias("stream_id"), *REGRESSIONS))
            window = window._replace(deltas=window.deltas.clear())  # the next rows come into their place
            made, whole = _check_runs(snapshot, window, edges)
            checks.append(made)
            if not whole:
                unchecked.add(stream_id)
    streams = frozenset(row["stream_id"] for row in known) - gone
    return GathererHour(
        _filter_long_names(claims), _filter_long_names(regressions), _filter_long_names(checks), streams, may_grow,
        pl.DataFrame(held, schema=HELD, orient="row"), frozenset(unchecked), incomplete,
    )  # fmt: skip


def count_claims(window: StreamWindow, edges: Interval, max_out_of_orderness_us: int) -> pl.DataFrame:
    """The claims of one stream within [low, high), and what it holds there. Pure; gives the columns of CLAIMS."""
    found = find_claims_within(window, edges, max_out_of_orderness_us)
    rows = [(ticker, low, high) for ticker, intervals in found.items() for low, high in intervals]
    frame = pl.DataFrame(rows, schema=["ticker", "from_us", "to_us"], orient="row") if rows else _empty(CLAIMS)
    tickers = {
        ticker: number for number, ticker in enumerate(window.book_subscriptions["ticker"].cast(pl.String).unique())
    }
    timeline = build_timeline(window.deltas, tickers, edges[0])
    market = np.array([tickers[ticker] for ticker in frame["ticker"]], dtype=np.int64)
    low = timeline.before(market, frame["from_us"].to_numpy())
    high = timeline.before(market, frame["to_us"].to_numpy())
    return frame.with_columns(
        stream_id=pl.lit(window.stream_id),
        rows=pl.Series(high - low),
        content=pl.Series((timeline.contents[high] - timeline.contents[low]).view(np.int64)),
    ).select(pl.col(name).cast(kind) for name, kind in CLAIMS.items())


def build_timeline(deltas: pl.DataFrame, tickers: dict[str, int], low_us: int) -> Timeline:
    """Deltas (of known markets) as a timeline around the hour that begins at `low_us`."""
    market = deltas["ticker"].replace_strict(tickers, return_dtype=pl.Int64) if deltas.height else deltas["seq"]
    parts, contents = delta_hashes(deltas), row_fingerprints(deltas)
    return Timeline(low_us - 3_600_000_000, market.to_numpy(), deltas["exchange_us"].to_numpy(), parts, contents)


def _count_held(window: StreamWindow, edges: Interval) -> tuple[int, int, int]:
    inside = window.segments.filter((pl.col("low_us") < edges[1]) & (pl.col("high_us") >= edges[0]))
    deltas = window.deltas.filter(pl.col("exchange_us").is_between(*edges, closed="left")).height
    return window.stream_id, int(inside["seq_to"].max() or 0), deltas  # type: ignore[arg-type]


def _check_runs(snapshot: ArrowSnapshot, window: StreamWindow, edges: Interval) -> tuple[pl.DataFrame, bool]:
    """The checks of the stream that touch the hour, and whether none of them was left out because rows are gone."""
    every = pair_snapshots(
        clip_to_range(window.book_subscriptions, merge_segments(window.segments)), window.segments, edges
    )
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


def _empty(schema: dict[str, pl.DataType] | dict[str, type[pl.DataType]]) -> pl.DataFrame:
    return pl.DataFrame(schema=schema)


def _filter_long_names(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate, without markets that cannot be a key of production: their rows are quarantined."""
    return pl.concat(parts).filter(pl.col("ticker").str.len_chars() <= LONGEST_NAME)
