"""Measures where exchange times go back within a stream, and what that invalidates of its claims. Pure.

Claims rest on max_out_of_orderness: after a frame of time t no frame has a time before t - max_out_of_orderness. Where
one does, that bound was too small just then, so that nothing from the earlier time to the later one is claimed of any
market of that feed.
"""

from __future__ import annotations

import polars as pl

from kalshi_platform.market.intervals import Interval, union

REGRESSIONS = {"ticker": pl.String, "steps": pl.Int64, "largest_us": pl.Int64, "exchange_us": pl.Int64}


def measure_regressions(deltas: pl.DataFrame, within: Interval) -> pl.DataFrame:
    """Measure regressions of rows within the range: per ticker how many, the largest (µs), and the time of its row.

    `deltas`: seq, exchange_us, ticker, of one stream. The empty ticker stands for the stream as a whole.
    """
    ordered = deltas.select("seq", "exchange_us", pl.col("ticker").cast(pl.String)).sort("seq")
    whole = ordered.with_columns(ticker=pl.lit(""))
    return pl.concat([_measure(whole, within), _measure(ordered, within)]).sort("ticker")


def invalidated_intervals(deltas: pl.DataFrame, max_out_of_orderness_us: int) -> dict[int, list[Interval]]:
    """Return what regressions beyond the bound invalidate, by exchange_index; `deltas` also with that column."""
    peak = pl.col("exchange_us").cum_max().shift(1).over("exchange_index")
    stepped = (
        deltas.select("seq", "exchange_us", "exchange_index")
        .sort("seq")
        .with_columns(_peak=peak)
        .filter(pl.col("exchange_us") < pl.col("_peak") - max_out_of_orderness_us)
    )
    found: dict[int, list[Interval]] = {}
    for index, low, high in stepped.select("exchange_index", "exchange_us", "_peak").iter_rows():
        found.setdefault(index, []).append((low, high + 1))
    return {index: union(parts) for index, parts in found.items()}


def invalidated_between_segments(segments: pl.DataFrame, max_out_of_orderness_us: int) -> list[Interval]:
    """Return the same from one commit to later ones, as far as their times show; of all feeds of the stream.

    `segments`: seq_from, low_us, high_us (null without deltas).
    """
    stepped = (
        segments.filter(pl.col("low_us").is_not_null())
        .sort("seq_from")
        .with_columns(_peak=pl.col("high_us").cum_max().shift(1))
        .filter(pl.col("low_us") < pl.col("_peak") - max_out_of_orderness_us)
    )
    return union((low, high + 1) for low, high in stepped.select("low_us", "_peak").iter_rows())


def _measure(ordered: pl.DataFrame, within: Interval) -> pl.DataFrame:
    back = pl.col("exchange_us").cum_max().over("ticker") - pl.col("exchange_us")
    return (
        ordered.with_columns(_back=back)
        .filter((pl.col("_back") > 0) & pl.col("exchange_us").is_between(*within, closed="left"))
        .group_by("ticker")
        .agg(
            pl.len().cast(pl.Int64).alias("steps"),
            pl.col("_back").max().alias("largest_us"),
            pl.col("exchange_us").get(pl.col("_back").arg_max()),
        )
        .select(pl.col(name).cast(kind) for name, kind in REGRESSIONS.items())
    )
