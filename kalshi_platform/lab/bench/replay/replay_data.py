"""A lake of one closed hour, as a busy exchange makes it, put together without a database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa

from kalshi_platform.lab.bench.export.export_data import ExportData
from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.lake.export.parquet import write_parts
from kalshi_platform.lake.export.publish import publish
from kalshi_platform.lake.layout import partition_starting
from kalshi_platform.lake.manifest import Manifest, code_version
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.market.times import HOUR
from kalshi_platform.storage.arrow import arrow_schema

_NO_BOOK: dict[str, list[int]] = {"yes_price_e4": [], "yes_count_e2": [], "no_price_e4": [], "no_count_e2": []}


def make_lake(folder: Path, data: ExportData) -> int:
    """Publish the hour's deltas, every market covered and known to be empty before it; return how many rows."""
    lake = LakeSettings(folder.as_uri())
    deltas = DATASETS["raw/orderbook_deltas"]
    frame = pl.concat(pl.DataFrame(pl.from_arrow(batch)) for batch in data.batches())
    rows = frame.sort(list(deltas.order), maintain_order=True).to_arrow()
    schema = arrow_schema(PRODUCTION_TABLES["orderbook_deltas"])
    batches = rows.select(schema.names).cast(schema).select(deltas.schema.names).cast(deltas.schema).to_batches(100_000)
    _publish(lake, deltas, data.hour, batches)
    tickers = sorted(frame.get_column("ticker").unique(), key=str.encode)
    checkpoint = {"checkpoint_ts": data.hour - timedelta(microseconds=1), "gatherer": "", "stream_id": 0, "seq": 0}
    _put(
        lake, "raw/book_checkpoints", data.hour - HOUR, [{"ticker": each, **checkpoint, **_NO_BOOK} for each in tickers]
    )
    _put(lake, "raw/book_checkpoints", data.hour, [])
    whole = {"from_ts": data.hour, "to_ts": data.hour + HOUR, "hour": data.hour, "gatherers": ["g1"], "stream_ids": [1]}
    _put(lake, "raw/coverage", data.hour, [{"ticker": each, **whole} for each in tickers])
    return frame.height


def _put(lake: LakeSettings, key: str, hour: datetime, rows: list[dict[str, object]]) -> None:
    data = DATASETS[key]
    _publish(lake, data, hour, pa.Table.from_pylist(rows, schema=data.schema).to_batches())


def _publish(lake: LakeSettings, data: Dataset, hour: datetime, batches: Iterable[pa.RecordBatch]) -> None:
    store = open_store(lake)
    partition = partition_starting(data, hour)
    with store.staging() as folder:
        parts = write_parts(batches, data, folder)
        manifest = Manifest(
            table=data.key,
            partition=partition.key,
            state="closed",
            rows=parts.rows,
            time_min=parts.time_min,
            time_max=parts.time_max,
            files=(),
            schema_version=data.version,
            code_version=code_version(),
            exported_at=hour + HOUR,
            closed_at=hour + HOUR,
            coverage_share=1.0,
        )
        publish(store, partition.path, parts, manifest, None)
