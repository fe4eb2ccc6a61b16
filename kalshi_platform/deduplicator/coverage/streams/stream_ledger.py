"""Reads a gatherer's ledger of one stream: which numbers were committed, and which markets it followed when."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot

_SQL = load(Path(__file__).parents[1] / "queries.sql")
CLOCKS_APART = timedelta(days=1)
"""Streams are opened and ended by our clock, rows are dated by the exchange's."""


class StreamLedger(NamedTuple):
    """What a gatherer's ledger says of its streams.

    `segments`: stream_id, seq_from, seq_to, exchange_ts_min and …_max, and these as low_us, high_us (null without
    deltas); by seq_from. `book_subscriptions`: stream_id, ticker, exchange_index, seq_from, seq_to.
    """

    segments: pl.DataFrame
    book_subscriptions: pl.DataFrame

    @property
    def indices(self) -> pl.DataFrame:
        """Columns ticker and exchange_index, a row per market."""
        markets = self.book_subscriptions.unique("ticker", keep="last", maintain_order=True)
        return markets.select("ticker", "exchange_index")


def read_ledger(snapshot: ArrowSnapshot, stream_id: int) -> StreamLedger:
    """Read the ledger of a stream. Raises DatabaseUnavailable."""
    segments = _frame(snapshot, "read_segments", stream_id).with_columns(
        low_us=pl.col("exchange_ts_min").dt.epoch("us"), high_us=pl.col("exchange_ts_max").dt.epoch("us")
    )
    book_subscriptions = _frame(snapshot, "read_book_subscriptions", stream_id)
    return StreamLedger(segments, book_subscriptions)


def _frame(snapshot: ArrowSnapshot, name: str, stream_id: int) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(snapshot.table(_SQL[name], (stream_id,))))
