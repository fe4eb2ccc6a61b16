"""What was stored: rows of production, of the lake's files and of single gatherers, in natural columns, by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lab.proof.comparison.tables import (
    COMBO_PREFIX,
    DELTAS,
    LIFECYCLE,
    MARKETS,
    STREAM_TABLES,
    TICKERS,
    TIMED_TABLES,
    ComparableTable,
    stored,
)
from kalshi_platform.lab.proof.comparison.truth import ALL_TIME
from kalshi_platform.lake.layout import find_dataset
from kalshi_platform.lake.manifest import find_manifest, published
from kalshi_platform.lake.reader.frames import text_of_trade_id
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.market.intervals import Interval, union
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

_COLUMNS: Mapping[str, str] = {
    "orderbook_deltas": "exchange_ts, ticker, side, price_e4, delta_e2",
    "trades": "exchange_ts, ticker, trade_id, yes_price_e4, no_price_e4, count_e2, taker_side, is_block_trade",
    "tickers": "exchange_ts, ticker, price_e4, yes_bid_e4, yes_ask_e4, yes_bid_size_e2, yes_ask_size_e2,"
    " last_trade_size_e2, volume_e2, open_interest_e2, dollar_volume, dollar_open_interest",
    "market_lifecycle": "ticker, event_type, content::text AS content",
    "markets": "ticker, status, result, settlement_value_e6, open_time, close_time",
}
_COLUMNS_OF = {
    name: [each.strip().removesuffix("::text AS content") for each in text.split(",")]
    for name, text in _COLUMNS.items()
}
STATED = "NOT EXISTS (SELECT FROM coverage_holes(c.ticker, c.from_ts, c.to_ts))"
"""Of rows `c` of coverage those that count: what was dropped since is told as a hole."""
_LEVELS = pl.List(pl.Int64)
_CHECKPOINT_SCHEMA: dict[str, pl.DataType] = {
    "checkpoint_ts": pl.Datetime("us", "UTC"), "ticker": pl.String(), "yes_price_e4": _LEVELS, "yes_count_e2": _LEVELS,
    "no_price_e4": _LEVELS, "no_count_e2": _LEVELS,
}  # fmt: skip
CHECKPOINTS = "checkpoint_ts, ticker, yes_price_e4, yes_count_e2, no_price_e4, no_count_e2"


class Production:
    """Production's tables in natural columns, as they were when this was opened. A context manager.

    Raises DatabaseUnavailable.
    """

    def __init__(self, url: str) -> None:
        self._opening = arrow_snapshot(url)
        self._snapshot: ArrowSnapshot

    def __enter__(self) -> Self:
        self._snapshot = self._opening.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opening.__exit__(kind, error, trace)

    def rows(self, table: ComparableTable, part: Interval = ALL_TIME) -> pl.DataFrame:
        """Rows of a part of time; lifecycle and markets have no time here and are always whole."""
        found = _rows(self._snapshot, table, part)
        if table is MARKETS:
            found = found.filter(~pl.col("ticker").str.starts_with(COMBO_PREFIX))
        return stored(table, found)

    def checkpoints(self) -> pl.DataFrame:
        """All book checkpoints."""
        return _frame(self._snapshot.table(f"SELECT {CHECKPOINTS} FROM book_checkpoints"))  # noqa: S608

    def coverage(self) -> dict[str, list[Interval]]:
        """Ticker → when production says that it holds every delta."""
        rows = _frame(self._snapshot.table(f"SELECT c.ticker, c.from_ts, c.to_ts FROM coverage c WHERE {STATED}"))  # noqa: S608
        found: dict[str, list[Interval]] = {}
        for ticker, low, high in rows.with_columns(pl.col("from_ts", "to_ts").dt.epoch("us")).iter_rows():
            found.setdefault(ticker, []).append((low, high))
        return {ticker: union(intervals) for ticker, intervals in found.items()}

    def exchange_indices(self) -> dict[str, int]:
        """Ticker → which of the exchange's instances trades it, as the catalog says."""
        return dict(_frame(self._snapshot.table("SELECT ticker, exchange_index FROM markets")).iter_rows())


def proven_books(url: str, samples: Sequence[tuple[str, int]]) -> pl.DataFrame:
    """Ask production for books (ticker, µs of exchange time); return those that it calls proven, as checkpoints.

    Raises DatabaseUnavailable.
    """
    asked = [ticker for ticker, _ in samples], [datetime_from_us(at_us) for _, at_us in samples]
    database = Database(url, name="production", pool_size=1)
    try:
        with database.transaction() as transaction:
            rows = transaction.fetch_all(
                "SELECT s.at AS checkpoint_ts, s.ticker,"
                " coalesce(array_agg(b.price_e4 ORDER BY b.price_e4) FILTER (WHERE b.side = 'yes'), '{}'),"
                " coalesce(array_agg(b.count_e2 ORDER BY b.price_e4) FILTER (WHERE b.side = 'yes'), '{}'),"
                " coalesce(array_agg(b.price_e4 ORDER BY b.price_e4) FILTER (WHERE b.side = 'no'), '{}'),"
                " coalesce(array_agg(b.count_e2 ORDER BY b.price_e4) FILTER (WHERE b.side = 'no'), '{}')"
                " FROM unnest(%s::text[], %s::timestamptz[]) AS s (ticker, at)"
                " CROSS JOIN LATERAL (SELECT k.state FROM book_basis(s.ticker, s.at) k) AS basis"
                " LEFT JOIN LATERAL book_at(s.ticker, s.at) b ON true WHERE basis.state = 'proven'"
                " GROUP BY s.at, s.ticker HAVING bool_and(b.state IS NULL OR b.state = 'proven')",
                asked,
            )
    finally:
        database.dispose()
    return pl.DataFrame(rows, schema=_CHECKPOINT_SCHEMA, orient="row")


class Lake:
    """The lake's Parquet files, read as any program would, in natural columns. Raises LakeCorrupt."""

    tables = STREAM_TABLES

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rows(self, table: ComparableTable, part: Interval = ALL_TIME) -> pl.DataFrame:
        """Rows of a part of time; lifecycle has no time here and is always whole."""
        rows = self._scan(table.name)
        if (shown := text_of_trade_id(rows.collect_schema())) is not None:
            rows = rows.with_columns(shown)
        if table in TIMED_TABLES:
            for moment, keeps in zip(part, (pl.Expr.ge, pl.Expr.lt), strict=True):
                if moment not in ALL_TIME:
                    rows = rows.filter(keeps(pl.col("exchange_ts"), datetime_from_us(moment)))
        return stored(table, rows.select(_COLUMNS_OF[table.name]).collect())

    def checkpoints(self) -> pl.DataFrame:
        """All book checkpoints."""
        return self._scan("book_checkpoints").select(CHECKPOINTS.split(", ")).collect()

    def _scan(self, table: str) -> pl.LazyFrame:
        store = FolderStore(FolderRoot(self._folder))
        files: list[Path] = []
        # By their manifests: beside their files may lie some of exports that were cut short.
        for partition in published(store, find_dataset(f"raw/{table}")):
            found = find_manifest(store, partition)
            files += [self._folder / found[0] / file.name for file in found[1].files] if found else []
        if not files:
            raise LakeCorrupt(f"the lake in {self._folder} has no files of raw/{table}")
        return pl.concat([pl.scan_parquet(file, hive_partitioning=False, glob=False) for file in files])


def gatherer_deltas(snapshot: ArrowSnapshot, part: Interval = ALL_TIME) -> pl.DataFrame:
    """A gatherer's deltas of a part of time, in natural columns, with `seen`.

    That is how often the stream that saw most of it saw each.
    """
    frame = _rows(snapshot, DELTAS, part, ", stream_id")
    return (
        stored(DELTAS, frame)
        .with_columns(frame["stream_id"])
        .group_by(*DELTAS.columns, "stream_id")
        .agg(pl.len().cast(pl.Int64).alias("seen"))
        .group_by(*DELTAS.columns)
        .agg(pl.col("seen").max())
    )


def gatherer_spans(snapshot: ArrowSnapshot) -> dict[str, list[Interval]]:
    """Table → from the first to the last row of each stream, in exchange time (µs); lifecycle goes by the tickers'.

    Channels without numbers claim only that their connection lived: what a stream brought lies between its ends.
    """
    spans: dict[str, list[Interval]] = {}
    for table in TIMED_TABLES:
        rows = snapshot.table(
            f"SELECT min(exchange_ts) AS low, max(exchange_ts) AS high FROM {table.name}"  # noqa: S608 - our own names
            " WHERE stream_id <> 0 GROUP BY stream_id"
        )
        spans[table.name] = sorted(_frame(rows).select(pl.all().dt.epoch("us")).rows())
    spans[LIFECYCLE.name] = spans[TICKERS.name]
    return spans


def _rows(snapshot: ArrowSnapshot, table: ComparableTable, part: Interval, more: str = "") -> pl.DataFrame:
    query = f"SELECT {_COLUMNS[table.name]}{more} FROM {table.name}"  # noqa: S608 - our own names
    params: list[datetime] = []
    if table in TIMED_TABLES:
        for moment, sign in zip(part, (">=", "<"), strict=True):
            if moment not in ALL_TIME:
                params.append(datetime_from_us(moment))
                query += f" {'AND' if len(params) > 1 else 'WHERE'} exchange_ts {sign} ${len(params)}"
    return _frame(snapshot.table(query, params))


def _frame(rows: Any) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(rows))
