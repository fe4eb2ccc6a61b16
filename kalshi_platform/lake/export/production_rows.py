"""The rows of production for a partition, in the order of its data set, whatever their number, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa

from kalshi_platform.lake import queries
from kalshi_platform.lake.export.external_sort import external_sort
from kalshi_platform.lake.export.parquet import to_schema
from kalshi_platform.lake.export.read_ahead import read_ahead
from kalshi_platform.lake.export.record_sort import CountedTicker, can_sort, sort_records
from kalshi_platform.lake.layout import Partition
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform.storage.fixed_rows import copied, decode, has_fixed_width
from kalshi_platform.storage.read import ArrowSnapshot


def count_rows(snapshot: ArrowSnapshot, partition: Partition) -> list[CountedTicker]:
    """How many rows each market has in the partition."""
    counted = snapshot.table(queries.rows_per_ticker_query(partition)).to_pylist()
    return [CountedTicker(row["ticker"], row["hash"], row["rows"]) for row in counted]


@contextmanager
def rows_in_order(
    snapshot: ArrowSnapshot, partition: Partition, counted: Sequence[CountedTicker], folder: Path
) -> Iterator[Iterator[pa.RecordBatch]]:
    """Yield the partition's rows in the schema and order of its data set; `counted` names every market.

    Rows on their way lie in `folder`. Raises LakeCorrupt for a row of another market, DatabaseUnavailable.
    """
    data = partition.dataset
    if has_fixed_width(data.columns) and not data.plain and can_sort(data):
        span_us = us_from_datetime(partition.start), us_from_datetime(partition.end)
        with copied(snapshot, queries.fixed_rows_query(partition)) as blocks:
            records = decode(blocks, data.columns)
            ordered = sort_records(records, data, span_us, counted, _texts_at(snapshot, partition), folder)
            with read_ahead(ordered, 1) as rows:
                yield rows
        return
    by_ticker = {each.ticker: each.rows for each in counted}
    with (
        rows_of_statement(snapshot, partition) as batches,
        read_ahead(external_sort(batches, data, by_ticker, folder), 1) as rows,
    ):
        yield rows


@contextmanager
def rows_of_statement(snapshot: ArrowSnapshot, partition: Partition) -> Iterator[Iterator[pa.RecordBatch]]:
    """Yield what the data set's statement gives for the partition, in its schema, as the server orders it."""
    # Closed before the snapshot: the driver refuses to leave a cursor open.
    with closing(_read(snapshot, partition)) as read, read_ahead(read) as batches:
        yield batches


def _read(snapshot: ArrowSnapshot, partition: Partition) -> Generator[pa.RecordBatch, None, None]:
    for batch in snapshot.batches(queries.rows_query(partition)):
        yield to_schema(batch, partition.dataset)


def _texts_at(snapshot: ArrowSnapshot, partition: Partition) -> Callable[[str, Sequence[int]], Mapping[int, str]]:
    def texts_at(column: str, times_us: Sequence[int]) -> Mapping[int, str]:
        moments = [datetime_from_us(time_us) for time_us in times_us]
        found = snapshot.table(queries.texts_query(partition, column, moments)).to_pylist()
        return {row["hash"]: row["text"] for row in found}

    return texts_at
