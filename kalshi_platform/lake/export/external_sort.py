"""Put more rows in order than memory holds: whole markets go into buckets on disk, which are then sorted one by one.

The server can sort too, but takes several times as long, and sends the first row only when it has sorted the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.datasets import Dataset

# Smaller buckets take less memory; each is an open file.
_BUCKETS_PER_GROUP = 4
_MOST_BUCKETS = 256


def external_sort(
    batches: Iterable[pa.RecordBatch], data: Dataset, rows_per_ticker: Mapping[str, int], folder: Path
) -> Iterator[pa.RecordBatch]:
    """Yield all rows of `batches` (in the schema of `data`) in its order, texts by their bytes.

    `rows_per_ticker` must name every ticker that comes. Memory is that of one row group, or of the biggest market.
    """
    tickers = sorted(rows_per_ticker, key=str.encode)
    rows_per_bucket = max(data.rows_per_group // _BUCKETS_PER_GROUP, sum(rows_per_ticker.values()) // _MOST_BUCKETS)
    buckets = _assign([rows_per_ticker[ticker] for ticker in tickers], rows_per_bucket)
    count = buckets[-1] + 1 if buckets else 0
    if count <= 1:
        yield from _sorted(list(batches), data)
        return
    paths = [folder / f"bucket-{number}.arrow" for number in range(count)]
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_stream(str(path), data.schema)) for path in paths]
        names, places = pa.array(tickers, pa.string()), pa.array(buckets, pa.int32())
        for batch in batches:
            for number, rows in _split(batch, names, places):
                writers[number].write_batch(rows)
    for path in paths:
        with pa.ipc.open_stream(str(path)) as reader:
            kept = list(reader)
        path.unlink()
        yield from _sorted(kept, data)


def _assign(rows: list[int], rows_per_bucket: int) -> list[int]:
    """The bucket of each ticker, ascending: as many neighbours together as fit."""
    buckets: list[int] = []
    bucket = filled = 0
    for number in rows:
        if filled and filled + number > rows_per_bucket:
            bucket, filled = bucket + 1, 0
        filled += number
        buckets.append(bucket)
    return buckets


def _split(batch: pa.RecordBatch, names: pa.Array, places: pa.Array) -> Iterator[tuple[int, pa.RecordBatch]]:
    bucket = places.take(pc.index_in(batch.column("ticker"), value_set=names))
    if bucket.null_count:
        raise LakeCorrupt("rows of a market came that was not counted in the same snapshot")
    together = batch.take(pc.sort_indices(bucket))
    start = 0
    for found in sorted(pc.value_counts(bucket).to_pylist(), key=lambda item: int(item["values"])):
        yield found["values"], together.slice(start, found["counts"])
        start += found["counts"]


def _sorted(batches: list[pa.RecordBatch], data: Dataset) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(batches, data.schema).combine_chunks()
    batches.clear()
    table = table.take(pc.sort_indices(table, [(name, "ascending") for name in data.order]))
    yield from table.to_batches()
