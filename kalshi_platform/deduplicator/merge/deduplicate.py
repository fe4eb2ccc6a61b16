"""Deduplicates rows of several gatherers into rows of production, each message once. Pure.

Of equal rows the one that was received first is kept (then the gatherer's name, stream and seq decide). Trades and
tickers of one market and moment come from one stream, because their order is that of its seq. So the result does not
depend on the order in which gatherers are read. Rows that production holds already are left to its keys and anti-joins.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from kalshi_platform.market.identity import DELTA_KEY, TICKER_KEY, TRADE_KEY, TRADE_WINDOW_US
from kalshi_platform.market.tables import MERGED_TABLES

TRADE_IDENTITY = ("ticker", "trade_id")
LIFECYCLE_IDENTITY = ("ticker", "fingerprint")
_FIRST_OBSERVER = ("received_at", "gatherer", "stream_id", "seq")
_MOMENT = ("exchange_ts", "ticker")
_SNAPSHOT_KEY = ("snapshot_ts", "ticker", "source", "source_gatherer", "stream_id", "seq")
_LIFECYCLE_KEY = ("received_at", "ticker", "fingerprint")
PRODUCTION_KEYS = {
    "orderbook_deltas": DELTA_KEY, "trades": TRADE_KEY, "tickers": TICKER_KEY, "orderbook_snapshots": _SNAPSHOT_KEY,
    "market_lifecycle": _LIFECYCLE_KEY,
}  # fmt: skip
"""What is unique in production: a row with the same key as one there is never inserted."""


class UniqueRows(NamedTuple):
    """`rows`: those of one table for production. `rows_read`: how many rows of gatherers they were made of."""

    rows: pl.DataFrame
    rows_read: int


def deduplicate_tables(by_gatherer: Mapping[str, Mapping[str, pa.Table]]) -> dict[str, UniqueRows]:
    """Deduplicate the rows of all gatherers (gatherer → table → rows), table by table; empty tables are left out."""
    unique = {}
    for table in MERGED_TABLES:
        parts = {name: tables[table] for name, tables in by_gatherer.items() if table in tables}
        rows_read = sum(part.num_rows for part in parts.values())
        if rows_read:
            unique[table] = UniqueRows(deduplicate(table, parts), rows_read)
    return unique


def deduplicate(table: str, by_gatherer: Mapping[str, pa.Table]) -> pl.DataFrame:
    """Deduplicate rows of one of MERGED_TABLES (gatherer → rows in gatherers' columns).

    Returns production's columns, sorted by time.
    """
    frames = [pl.DataFrame(rows).with_columns(gatherer=pl.lit(name)) for name, rows in sorted(by_gatherer.items())]
    rows = pl.concat(frames)
    return _RULE_OF_TABLE[table](rows)


def deduplicate_deltas(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep one row per (exchange_ts, ticker, side, price_e4, delta_e2, occurrence)."""
    return _first_per_key(rows, DELTA_KEY)


def deduplicate_trades(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep one row per trade_id of a ticker within ± 1 minute: sources may disagree on the millisecond."""
    return _drop_within_window(_from_one_stream(rows, TRADE_KEY), TRADE_IDENTITY, "exchange_ts", TRADE_WINDOW_US)


def deduplicate_tickers(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep one row per ticker, time and content."""
    return _from_one_stream(rows, TICKER_KEY)


def deduplicate_snapshots(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep every book of a stream or recovery with its gatherer, and one polled book per market and minute."""
    polled = pl.col("source") == "rest"
    rows = rows.with_columns(
        source_gatherer=pl.when(polled).then(pl.lit("")).otherwise(pl.col("gatherer")),
        stream_id=pl.when(polled).then(0).otherwise(pl.col("stream_id")),
        seq=pl.when(polled).then(0).otherwise(pl.col("seq")),
    )
    return _first_per_key(rows, _SNAPSHOT_KEY)


def deduplicate_lifecycle(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep one row per time and content. Which of them are one event depends on production: see `insert_rounds`."""
    return _first_per_key(rows, _LIFECYCLE_KEY)


def insert_rounds(table: str, rows: pl.DataFrame) -> list[pl.DataFrame]:
    """Split rows so that inserting part after part, each only where production has no equal row near it, is right.

    Equal lifecycle content within 5 minutes is one event, the one received first. Its rows are inserted one after the
    other: one that production holds already must not hide a later one that is an event of its own. All other tables
    are inserted at once (a trade_id never comes back).
    """
    if table != "market_lifecycle" or rows.is_empty():
        return [rows]
    ordered = rows.sort(_FIRST_OBSERVER).with_columns(_round=pl.int_range(pl.len()).over(LIFECYCLE_IDENTITY))
    return [part.drop("_round") for part in ordered.partition_by("_round", maintain_order=True)]


def _from_one_stream(rows: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """Keep one row per key; those of one market and moment from one stream, as far as it has them.

    Their order within the moment is that of the stream's seq, and numbers of two streams cannot be compared. The stream
    with most rows of the moment is taken, of several the one that received its first earliest.
    """
    stream = (*_MOMENT, "gatherer", "stream_id")
    ranked = rows.with_columns(
        _missing=-pl.len().over(stream).cast(pl.Int64), _began=pl.col("received_at").min().over(stream)
    )
    return _first_per_key(ranked, key, ("_missing", "_began", *_FIRST_OBSERVER)).drop("_missing", "_began")


def _first_per_key(rows: pl.DataFrame, key: tuple[str, ...], by: tuple[str, ...] = _FIRST_OBSERVER) -> pl.DataFrame:
    # One sort and one filter: sorting by first observer, `unique`, and sorting by key hold two more copies of all rows.
    ordered = rows.sort(*key, *(name for name in by if name not in key))
    first = pl.any_horizontal(pl.col(name) != pl.col(name).shift(1) for name in key)
    return ordered.filter(first.fill_null(value=True))


def _drop_within_window(rows: pl.DataFrame, identity: tuple[str, ...], time: str, window_us: int) -> pl.DataFrame:
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


_RULE_OF_TABLE = {
    "orderbook_deltas": deduplicate_deltas,
    "trades": deduplicate_trades,
    "tickers": deduplicate_tickers,
    "orderbook_snapshots": deduplicate_snapshots,
    "market_lifecycle": deduplicate_lifecycle,
}
