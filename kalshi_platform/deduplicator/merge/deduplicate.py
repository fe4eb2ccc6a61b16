"""Rows of several gatherers → rows of production, each message once. Pure.

The observer of a row is whoever received it first (then the gatherer's name, stream and seq decide); trades and tickers
of one market and moment come from one stream, because their order is that of its seq. So the result does not depend on
the order in which gatherers are read. What production holds already is left to its keys and anti-joins.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl
import pyarrow as pa

from kalshi_platform.market.identity import DELTA_KEY, TICKER_KEY, TRADE_KEY, TRADE_WINDOW_US

TRADE_IDENTITY = ("ticker", "trade_id")
LIFECYCLE_IDENTITY = ("ticker", "fingerprint")
_FIRST_OBSERVER = ("received_at", "gatherer", "stream_id", "seq")
_MOMENT = ("exchange_ts", "ticker")
_SNAPSHOT_KEY = ("snapshot_ts", "ticker", "source", "source_gatherer", "stream_id", "seq")
_LIFECYCLE_KEY = ("received_at", "ticker", "fingerprint")


def thin(table: str, by_gatherer: Mapping[str, pa.Table]) -> pl.DataFrame:
    """Unite rows of one merged table (gatherer's columns, by gatherer) into production's rows, sorted by time.

    Tables: see MERGED_TABLES of the storage room. The frame has production's columns.
    """
    frames = [pl.DataFrame(rows).with_columns(gatherer=pl.lit(name)) for name, rows in sorted(by_gatherer.items())]
    rows = pl.concat(frames)
    return _RULES[table](rows)


def thin_deltas(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per (exchange_ts, ticker, side, price_e4, delta_e2, occurrence)."""
    return _first_of(rows, DELTA_KEY)


def thin_trades(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per trade_id of a ticker within ± 1 minute: sources may disagree on the millisecond."""
    return _spaced(_of_one_stream(rows, TRADE_KEY), TRADE_IDENTITY, "exchange_ts", TRADE_WINDOW_US)


def thin_tickers(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per content of a ticker and time."""
    return _of_one_stream(rows, TICKER_KEY)


def thin_snapshots(rows: pl.DataFrame) -> pl.DataFrame:
    """Books of streams and recoveries stay with their observer; of the polled ones each market keeps one per minute."""
    polled = pl.col("source") == "rest"
    rows = rows.with_columns(
        source_gatherer=pl.when(polled).then(pl.lit("")).otherwise(pl.col("gatherer")),
        stream_id=pl.when(polled).then(0).otherwise(pl.col("stream_id")),
        seq=pl.when(polled).then(0).otherwise(pl.col("seq")),
    )
    return _first_of(rows, _SNAPSHOT_KEY)


def thin_lifecycle(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per time and content. Which of them are the same event depends on production: see `rounds`."""
    return _first_of(rows, _LIFECYCLE_KEY)


def rounds(table: str, rows: pl.DataFrame) -> list[pl.DataFrame]:
    """Split rows so that inserting part after part, each only where production has no equal row near it, is right.

    Equal lifecycle content within 5 minutes is one event, the one received first. Its rows must be asked one after the
    other: one that production refuses must not hide a later one that is an event of its own. Everything else goes at
    once (a trade_id never comes back).
    """
    if table != "market_lifecycle" or rows.is_empty():
        return [rows]
    ordered = rows.sort(_FIRST_OBSERVER).with_columns(_round=pl.int_range(pl.len()).over(LIFECYCLE_IDENTITY))
    return [part.drop("_round") for part in ordered.partition_by("_round", maintain_order=True)]


def _of_one_stream(rows: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """One row per key; those of one market and moment from one stream, as far as it has them.

    Their order within the moment is that of the stream's seq, and numbers of two streams cannot be compared. The stream
    with most rows of the moment is taken, of several the one that received its first earliest.
    """
    stream = (*_MOMENT, "gatherer", "stream_id")
    ranked = rows.with_columns(
        _missing=-pl.len().over(stream).cast(pl.Int64), _began=pl.col("received_at").min().over(stream)
    )
    return _first_of(ranked, key, ("_missing", "_began", *_FIRST_OBSERVER)).drop("_missing", "_began")


def _first_of(rows: pl.DataFrame, key: tuple[str, ...], by: tuple[str, ...] = _FIRST_OBSERVER) -> pl.DataFrame:
    # One sort and one filter: sorting by observer, `unique`, and sorting by key hold two more copies of all rows.
    ordered = rows.sort(*key, *(name for name in by if name not in key))
    first = pl.any_horizontal(pl.col(name) != pl.col(name).shift(1) for name in key)
    return ordered.filter(first.fill_null(value=True))


def _spaced(rows: pl.DataFrame, identity: tuple[str, ...], time: str, window_us: int) -> pl.DataFrame:
    """Keep a row only if no row of its identity that was received before it and kept lies within the window."""
    numbered = rows.with_row_index("_row")
    several = numbered.filter(pl.len().over(identity) > 1).sort(*_FIRST_OBSERVER)
    if several.is_empty():
        return rows
    window = timedelta(microseconds=window_us)
    kept: dict[tuple[object, ...], list[object]] = {}
    dropped: list[int] = []
    for index, moment, *name in several.select("_row", time, *identity).iter_rows():
        times = kept.setdefault(tuple(name), [])
        if any(abs(moment - other) <= window for other in times):
            dropped.append(index)
        else:
            times.append(moment)
    return numbered.filter(~pl.col("_row").is_in(dropped)).drop("_row")


_RULES = {
    "orderbook_deltas": thin_deltas,
    "trades": thin_trades,
    "tickers": thin_tickers,
    "orderbook_snapshots": thin_snapshots,
    "market_lifecycle": thin_lifecycle,
}
