"""Keeps the rows of one hour of one gatherer in temporary files, by table and bucket of markets.

Deltas are most of an hour: they are kept as numbers (DELTAS), other tables in their own columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_platform.deduplicator.merge.bucket_file import BucketFile
from kalshi_platform.deduplicator.merge.market_buckets import Ints, MarketBuckets
from kalshi_platform.market.intervals import Interval
from kalshi_platform.market.tables import GATHERER_TABLES, MERGED_TABLES, PRODUCTION_TABLES
from kalshi_platform.storage.arrow import arrow_schema

DELTA_TABLE = "orderbook_deltas"
OTHER_TABLES = tuple(table for table in MERGED_TABLES if table != DELTA_TABLE)
DELTAS = pa.schema(
    [
        ("market", pa.int32()), ("us", pa.int64()), ("level", pa.int32()), ("delta", pa.int64()),
        ("occurrence", pa.int32()), ("stream", pa.int64()), ("seq", pa.int64()), ("received", pa.int64()),
    ]
)  # fmt: skip
"""`level`: price_e4 × 2, and 1 more on the no side. Times in µs."""
_CHECKPOINTS = arrow_schema(PRODUCTION_TABLES["book_checkpoints"])
NO_CHECKPOINTS = pl.DataFrame(_CHECKPOINTS.empty_table())


class HourFiles:
    """Rows of [low, high) of the markets of a part. `rows_read` counts while another thread appends."""

    def __init__(self, folder: Path, markets: MarketBuckets, edges: Interval) -> None:
        folder.mkdir()
        self.folder = folder
        self.rows_read = 0
        self._markets = markets
        self._edges = edges
        self.deltas = BucketFile(folder / DELTA_TABLE, DELTAS)
        self.others: Mapping[str, BucketFile] = {
            table: BucketFile(folder / table, arrow_schema(GATHERER_TABLES[table], "batch_no"))
            for table in OTHER_TABLES
        }
        self.checkpoints = BucketFile(folder / "checkpoints", _CHECKPOINTS)

    def append_deltas(self, rows: pa.RecordBatch, market: Ints, exchange_us: Ints) -> None:
        """Append deltas, read in any columns of which those of a delta's content and origin are some."""
        inside = self._is_inside(exchange_us)
        columns = [
            market.astype(np.int32), exchange_us, number_levels(rows), rows.column("delta_e2"),
            rows.column("occurrence"), rows.column("stream_id"), rows.column("seq"),
            rows.column("received_at").cast(pa.int64()),
        ]  # fmt: skip
        batch = pa.record_batch([pa.array(each) for each in columns], schema=DELTAS)
        self.deltas.append(batch, np.where(inside, self._markets.buckets_of(market), -1))
        self.rows_read += rows.num_rows

    def append_rows(self, table: str, rows: pa.RecordBatch) -> None:
        """Append rows of another table."""
        times_us = rows.column(GATHERER_TABLES[table].time_column).cast(pa.int64()).to_numpy()
        inside = self._is_inside(times_us)
        market = self._markets.number_column(rows.column("ticker"))
        self.others[table].append(rows, np.where(inside, self._markets.buckets_of(market), -1))
        self.rows_read += rows.num_rows

    def append_checkpoints(self, rows: pl.DataFrame) -> None:
        """Append checkpoints of books: rows of `book_checkpoints`."""
        table = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(_CHECKPOINTS)
        for batch in table.to_batches():
            market = self._markets.number_column(batch.column("ticker"))
            self.checkpoints.append(batch, self._markets.buckets_of(market))

    def close(self) -> None:
        """Remove the files."""
        self.deltas.close()
        self.checkpoints.close()
        for each in self.others.values():
            each.close()

    def _is_inside(self, times_us: Ints) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = (times_us >= self._edges[0]) & (times_us < self._edges[1])
        return inside


def number_levels(rows: pa.RecordBatch) -> npt.NDArray[np.int32]:
    """Return price and side of each row as one number: see DELTAS."""
    is_no = pc.equal(rows.column("side"), "no").to_numpy(zero_copy_only=False)
    levels: npt.NDArray[np.int32] = rows.column("price_e4").to_numpy() * np.int32(2) + is_no
    return levels
