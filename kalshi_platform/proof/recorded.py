"""What was stored: rows of production, of the lake's files and of single gatherers, in natural columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.proof.tables import COMBO_PREFIX, DELTAS, LIFECYCLE, MARKETS, STREAM_TABLES, stored
from kalshi_platform.storage.read import arrow_snapshot

_COLUMNS: Mapping[str, str] = {
    "orderbook_deltas": "exchange_ts, ticker, side, price_e4, delta_e2",
    "trades": "exchange_ts, ticker, trade_id, yes_price_e4, no_price_e4, count_e2, taker_side, is_block_trade",
    "tickers": "exchange_ts, ticker, price_e4, yes_bid_e4, yes_ask_e4, yes_bid_size_e2, yes_ask_size_e2,"
    " last_trade_size_e2, volume_e2, open_interest_e2, dollar_volume, dollar_open_interest",
    "market_lifecycle": "ticker, event_type, content::text AS content",
    "markets": "ticker, status, result, settlement_value_e6, open_time, close_time",
}
ANCHORS = "anchor_ts, ticker, yes_price_e4, yes_count_e2, no_price_e4, no_count_e2"


def production(url: str) -> dict[str, pl.DataFrame]:
    """All compared tables of production, by name. Raises DatabaseUnavailable."""
    tables = (*STREAM_TABLES, MARKETS)
    with arrow_snapshot(url) as snapshot:
        found = {
            table.name: pl.DataFrame(pl.from_arrow(snapshot.table(f"SELECT {_COLUMNS[table.name]} FROM {table.name}")))  # noqa: S608
            for table in tables
        }
    found["markets"] = found["markets"].filter(~pl.col("ticker").str.starts_with(COMBO_PREFIX))
    return {table.name: stored(table, found[table.name]) for table in tables}


def lake(folder: Path) -> dict[str, pl.DataFrame]:
    """All compared tables that the lake has, read from its Parquet files as any program would. Raises LakeCorrupt."""
    return {table.name: stored(table, _files(folder, table.name)) for table in STREAM_TABLES}


def production_anchors(url: str) -> pl.DataFrame:
    """All book anchors of production."""
    with arrow_snapshot(url) as snapshot:
        return pl.DataFrame(pl.from_arrow(snapshot.table(f"SELECT {ANCHORS} FROM book_anchors")))  # noqa: S608


def lake_anchors(folder: Path) -> pl.DataFrame:
    """All book anchors of the lake."""
    return _files(folder, "book_anchors").select(ANCHORS.split(", "))


def exchange_indices(url: str) -> dict[str, int]:
    """Ticker → which of the exchange's instances trades it, as the catalog says."""
    with arrow_snapshot(url) as snapshot:
        rows = snapshot.table("SELECT ticker, exchange_index FROM markets").to_pylist()
    return {row["ticker"]: row["exchange_index"] for row in rows}


def gatherer_deltas(url: str) -> pl.DataFrame:
    """A gatherer's deltas in natural columns, with `seen`: how often the stream that saw most of it saw each."""
    with arrow_snapshot(url) as snapshot:
        rows = snapshot.table(f"SELECT {_COLUMNS[DELTAS.name]}, stream_id FROM {DELTAS.name}")  # noqa: S608
    frame = pl.DataFrame(pl.from_arrow(rows))
    return (
        stored(DELTAS, frame)
        .with_columns(frame["stream_id"])
        .group_by(*DELTAS.columns, "stream_id")
        .agg(pl.len().cast(pl.Int64).alias("seen"))
        .group_by(*DELTAS.columns)
        .agg(pl.col("seen").max())
    )


def gatherer_spans(url: str) -> dict[str, list[tuple[int, int]]]:
    """Table → from the first to the last row of each stream, in exchange time (µs); lifecycle goes by the tickers'.

    Channels without numbers claim only that their connection lived: what a stream brought lies between its ends.
    """
    spans: dict[str, list[tuple[int, int]]] = {}
    with arrow_snapshot(url) as snapshot:
        for table in ("orderbook_deltas", "trades", "tickers"):
            rows = snapshot.table(
                f"SELECT min(exchange_ts) AS low, max(exchange_ts) AS high FROM {table}"  # noqa: S608 - our own names
                " WHERE stream_id <> 0 GROUP BY stream_id"
            )
            frame = pl.DataFrame(pl.from_arrow(rows)).select(pl.all().dt.epoch("us"))
            spans[table] = sorted(frame.rows())
    spans[LIFECYCLE.name] = spans["tickers"]
    return spans


def _files(folder: Path, table: str) -> pl.DataFrame:
    files = sorted((folder / "raw" / table).glob("date=*/hour=*/part-*.parquet"))
    if not files:
        raise LakeCorrupt(f"the lake in {folder} has no files of raw/{table}")
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])
