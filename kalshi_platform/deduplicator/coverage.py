"""What one gatherer claims to hold completely: market by market, from its ledger and the times of its rows.

A membership claims S < t < E of its market, where S and E are those of anchors.py: the stream has shown by later times
that nothing before them can still come. Where a newer snapshot only continues a membership the two are one. A step
back of a market's time that is larger than the margin W breaks what S and E rest on, so the claims around it are
withdrawn. Segments of the ledger were committed with their rows, so a claim is true whenever it can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import polars as pl

from kalshi_platform.deduplicator.anchors import bounds
from kalshi_platform.deduplicator.runs import runs, spans
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.market.coverage import Interval, intersection, union, without
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

Claims = Mapping[str, list[Interval]]
"""Ticker → what is claimed of it, as `market.coverage.union` gives it."""
# Frames around the window tell how far a quiet market is claimed inside of it.
_LOOK_AROUND_MARGINS = 5


def read_claims(source: GathererSource, low: datetime, high: datetime, margin_us: int) -> Claims:
    """Return what the streams of `source` claim of [low, high). Raises DatabaseUnavailable.

    Ledger and rows are read in one snapshot; the rows of the window are held in memory.
    """
    around = timedelta(microseconds=_LOOK_AROUND_MARGINS * margin_us)
    window = [(us_from_datetime(low), us_from_datetime(high))]
    found: dict[str, list[Interval]] = {}
    with arrow_snapshot(source.timeseries_url) as snapshot:
        for stream_id in _streams(snapshot, low - around, high + around):
            of_stream = _of_stream(snapshot, stream_id, low - around, high + around, margin_us)
            for ticker, intervals in of_stream.items():
                found.setdefault(ticker, []).extend(intervals)
    return {ticker: intersection(union(intervals), window) for ticker, intervals in sorted(found.items())}


def claims(
    memberships: pl.DataFrame, segments: pl.DataFrame, deltas: pl.DataFrame, margin_us: int
) -> dict[str, list[Interval]]:
    """Return the claims of one stream. Pure.

    `memberships` and `segments` as for runs.py; `deltas`: seq, exchange_us, ticker, exchange_index. Deltas may be left
    out at either end: that only makes the claims shorter.
    """
    followed = continued(spans(memberships, runs(segments)))
    if followed.is_empty() or deltas.is_empty():
        return {}
    read_to = int(followed["seq_end"].max())  # type: ignore[arg-type]
    bounded = bounds(followed, deltas, read_to, margin_us).filter(pl.col("anchor_us") + 1 < pl.col("until_us"))
    found: dict[str, list[Interval]] = {}
    for ticker, start, end in bounded.select("ticker", "anchor_us", "until_us").iter_rows():
        found.setdefault(ticker, []).append((start + 1, end))
    steps = _steps_back(deltas, margin_us)
    return {ticker: without(union(parts), union(steps.get(ticker, []))) for ticker, parts in found.items()}


def continued(of_spans: pl.DataFrame) -> pl.DataFrame:
    """Join spans of one market that end at the number at which the next one starts (a newer snapshot came)."""
    key = ["stream_id", "ticker"]
    ordered = of_spans.sort(*key, "seq")
    begins = pl.col("seq") != pl.col("seq_end").shift(1).over(key)
    return (
        ordered.with_columns(_part=begins.fill_null(value=True).cum_sum())
        .group_by("_part", maintain_order=True)
        .agg(
            pl.col("stream_id", "ticker", "exchange_index", "seq").first(),
            pl.col("seq_end").last(),
        )
        .drop("_part")
        .sort("stream_id", "seq", "ticker")
    )


def _steps_back(deltas: pl.DataFrame, margin_us: int) -> dict[str, list[Interval]]:
    """Where the time of a market went back by more than the margin: from the earlier time to the later one."""
    peak = pl.col("exchange_us").cum_max().shift(1).over("ticker")
    stepped = deltas.sort("seq").with_columns(_peak=peak).filter(pl.col("exchange_us") < pl.col("_peak") - margin_us)
    found: dict[str, list[Interval]] = {}
    for ticker, low, high in stepped.select("ticker", "exchange_us", "_peak").iter_rows():
        found.setdefault(ticker, []).append((low, high + 1))
    return found


def _streams(snapshot: ArrowSnapshot, low: datetime, high: datetime) -> list[int]:
    found = snapshot.table(
        "SELECT stream_id FROM stream_segments WHERE exchange_ts_max >= $1 GROUP BY stream_id"
        " HAVING min(exchange_ts_min) < $2 ORDER BY stream_id",
        (low, high),
    )
    return [int(value) for value in found.column(0).to_pylist()]


def _of_stream(
    snapshot: ArrowSnapshot, stream_id: int, low: datetime, high: datetime, margin_us: int
) -> dict[str, list[Interval]]:
    segments = _frame(
        snapshot, "SELECT stream_id, seq_from, seq_to FROM stream_segments WHERE stream_id = $1", stream_id
    )
    memberships = _frame(
        snapshot,
        "SELECT stream_id, ticker, exchange_index, seq_from, seq_to FROM memberships WHERE stream_id = $1",
        stream_id,
    )
    indices = memberships.unique("ticker", keep="last", maintain_order=True).select("ticker", "exchange_index")
    deltas = (
        _frame(
            snapshot,
            "SELECT seq, exchange_ts, ticker FROM orderbook_deltas"
            " WHERE stream_id = $1 AND exchange_ts >= $2 AND exchange_ts < $3",
            stream_id,
            low,
            high,
        )
        .join(indices, on="ticker")
        .select("seq", pl.col("exchange_ts").dt.epoch("us").alias("exchange_us"), "ticker", "exchange_index")
    )
    return claims(memberships, segments, deltas, margin_us)


def _frame(snapshot: ArrowSnapshot, query: str, *params: object) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(snapshot.table(query, params)))
