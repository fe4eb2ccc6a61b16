"""The data sets that most people read, by name: each as a frame, and lazily as `scan_…`.

All take a lake, [start, end), and tickers or None for all markets. Options of frames: `holes` ("raise" or "mark"),
`open`, `production_url`; of scans: `holes` ("raise" or "allow"), `open`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias, TypedDict, Unpack

import polars as pl

from kalshi_platform.lake.layout import find_dataset, partition_at
from kalshi_platform.lake.reader.frames import read_rows
from kalshi_platform.lake.reader.scan import ScanHoles, scan
from kalshi_platform.lake.reader.source import Holes, Source
from kalshi_platform.lake.store import Lake

From: TypeAlias = Lake | Source
Tickers: TypeAlias = Sequence[str] | None
Layer: TypeAlias = Literal["raw", "processed"]
BookPeriod: TypeAlias = Literal["1s", "1m"]
CandlePeriod: TypeAlias = Literal["1m", "1h", "1d"]


class Options(TypedDict, total=False):
    """Options of reading frames."""

    holes: Holes
    open: bool
    production_url: str | None


class ScanOptions(TypedDict, total=False):
    """Options of scans."""

    holes: ScanHoles
    open: bool


def read(
    lake: From, dataset: str, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[Options]
) -> pl.DataFrame:
    """Rows of any data set, `layer/name`, by its time column, in its order. Raises UnknownPartition for no such one."""
    return read_rows(lake, find_dataset(dataset), start, end, tickers, **options)


def deltas(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[Options]
) -> pl.DataFrame:
    """Order-book changes by exchange_ts, columns of raw/orderbook_deltas, sorted by market and time."""
    return read(lake, "raw/orderbook_deltas", start, end, tickers, **options)


def trades(
    lake: From,
    start: datetime,
    end: datetime,
    tickers: Tickers = None,
    *,
    layer: Layer = "raw",
    **options: Unpack[Options],
) -> pl.DataFrame:
    """Trades by exchange_ts: scaled integers with provenance (`raw`), or dollars and contracts (`processed`)."""
    return read(lake, f"{layer}/trades", start, end, tickers, **options)


def tickers(
    lake: From,
    start: datetime,
    end: datetime,
    tickers: Tickers = None,
    *,
    layer: Layer = "processed",
    **options: Unpack[Options],
) -> pl.DataFrame:
    """Updates of best prices and totals, as the ticker channel sends them, by exchange_ts."""
    return read(lake, f"{layer}/tickers", start, end, tickers, **options)


def lifecycle(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[Options]
) -> pl.DataFrame:
    """What happened to markets and events, by the time of receipt."""
    return read(lake, "processed/lifecycle", start, end, tickers, **options)


def quotes(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[Options]
) -> pl.DataFrame:
    """Changes of best prices and sizes within the range; the row that holds at its start is one before it."""
    return read(lake, "processed/quotes", start, end, tickers, **options)


def books(
    lake: From,
    start: datetime,
    end: datetime,
    tickers: Tickers = None,
    *,
    period: BookPeriod = "1s",
    **options: Unpack[Options],
) -> pl.DataFrame:
    """The ten best levels a side at the ends of seconds or minutes with a change; for one moment: `book_at`."""
    return read(lake, f"processed/book_{period}", start, end, tickers, **options)


def candles(
    lake: From,
    start: datetime,
    end: datetime,
    tickers: Tickers = None,
    *,
    period: CandlePeriod = "1m",
    **options: Unpack[Options],
) -> pl.DataFrame:
    """Candles of the periods that begin in the range."""
    return read(lake, f"aggregates/candles_{period}", start, end, tickers, **options)


def markets(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[Options]
) -> pl.DataFrame:
    """Markets as known at the end of each day that ends in the range: titles, rules, strikes, result, settlement."""
    return read(lake, "processed/markets", start, end, tickers, **options)


def events(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[Options]
) -> pl.DataFrame:
    """Events as known at the end of each day; `tickers` are those of events."""
    return read(lake, "processed/events", start, end, tickers, **options)


def series(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[Options]
) -> pl.DataFrame:
    """Series as known at the end of each day; `tickers` are those of series."""
    return read(lake, "processed/series", start, end, tickers, **options)


def coverage(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[Options]
) -> pl.DataFrame:
    """Every moment of the range by market: proven, claimed, or a hole with its reason; cut at the range's ends."""
    data = find_dataset("processed/coverage")
    rows = read_rows(lake, data, partition_at(data, start).start, end, tickers, **options)
    inside = rows.filter((pl.col("to_ts") > start) & (pl.col("from_ts") < end))
    return inside.with_columns(
        from_ts=pl.max_horizontal("from_ts", _moment(start)),
        to_ts=pl.min_horizontal("to_ts", _moment(end)),
    )


def _moment(moment: datetime) -> pl.Expr:
    return pl.lit(moment.astimezone(UTC)).cast(pl.Datetime("us", "UTC"))


def scan_deltas(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[ScanOptions]
) -> pl.LazyFrame:
    """Scan order-book changes; see `deltas`."""
    return scan(lake, "raw/orderbook_deltas", start, end, tickers, **options)


def scan_trades(
    lake: From,
    start: datetime,
    end: datetime,
    tickers: Tickers = None,
    *,
    layer: Layer = "raw",
    **options: Unpack[ScanOptions],
) -> pl.LazyFrame:
    """Scan trades; see `trades`."""
    return scan(lake, f"{layer}/trades", start, end, tickers, **options)


def scan_tickers(
    lake: From,
    start: datetime,
    end: datetime,
    tickers: Tickers = None,
    *,
    layer: Layer = "processed",
    **options: Unpack[ScanOptions],
) -> pl.LazyFrame:
    """Scan updates of best prices and totals; see `tickers`."""
    return scan(lake, f"{layer}/tickers", start, end, tickers, **options)


def scan_lifecycle(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[ScanOptions]
) -> pl.LazyFrame:
    """Scan what happened to markets and events; see `lifecycle`."""
    return scan(lake, "processed/lifecycle", start, end, tickers, **options)


def scan_quotes(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[ScanOptions]
) -> pl.LazyFrame:
    """Scan changes of best prices and sizes; see `quotes`."""
    return scan(lake, "processed/quotes", start, end, tickers, **options)


def scan_books(
    lake: From,
    start: datetime,
    end: datetime,
    tickers: Tickers = None,
    *,
    period: BookPeriod = "1s",
    **options: Unpack[ScanOptions],
) -> pl.LazyFrame:
    """Scan books at the ends of periods; see `books`."""
    return scan(lake, f"processed/book_{period}", start, end, tickers, **options)


def scan_candles(
    lake: From,
    start: datetime,
    end: datetime,
    tickers: Tickers = None,
    *,
    period: CandlePeriod = "1m",
    **options: Unpack[ScanOptions],
) -> pl.LazyFrame:
    """Scan candles; see `candles`."""
    return scan(lake, f"aggregates/candles_{period}", start, end, tickers, **options)


def scan_markets(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[ScanOptions]
) -> pl.LazyFrame:
    """Scan markets as known at the end of each day; see `markets`."""
    return scan(lake, "processed/markets", start, end, tickers, **options)


def scan_events(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[ScanOptions]
) -> pl.LazyFrame:
    """Scan events as known at the end of each day; see `events`."""
    return scan(lake, "processed/events", start, end, tickers, **options)


def scan_series(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[ScanOptions]
) -> pl.LazyFrame:
    """Scan series as known at the end of each day; see `series`."""
    return scan(lake, "processed/series", start, end, tickers, **options)


def scan_coverage(
    lake: From, start: datetime, end: datetime, tickers: Tickers = None, **options: Unpack[ScanOptions]
) -> pl.LazyFrame:
    """Scan intervals of coverage that begin in the range; see `coverage`, which cuts them to it."""
    return scan(lake, "processed/coverage", start, end, tickers, **options)
