"""Production → one partition of the lake, streamed out of one snapshot in bounded memory.

`closed` promises that production has closed the time; `open` is a look at what is there, and never replaces `closed`.
An empty partition gets one file without rows, because readers that take a glob fail where it matches nothing, and learn
the columns and their types from the file.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import HourNotClosed, LakeCorrupt, PartitionBusy
from kalshi_platform.lake import queries
from kalshi_platform.lake.columns import shape
from kalshi_platform.lake.layout import Partition, lake_table, partition_starting
from kalshi_platform.lake.manifest import DataFile, Manifest, State, code_version, publish, read_manifest
from kalshi_platform.lake.objects import ObjectStore
from kalshi_platform.lake.parquet import Parts, write_parts
from kalshi_platform.lake.read_ahead import read_ahead
from kalshi_platform.lake.schema import dataset
from kalshi_platform.lake.sorting import in_order
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

_log = logging.getLogger(__name__)


def export_raw(
    lake: Lake, production_url: str, table: str, hour: datetime, state: State, clock: Clock = SYSTEM_CLOCK
) -> Manifest:
    """Export one hour of a raw table; see `export_partition`."""
    return export_partition(lake, production_url, partition_starting(lake_table(f"raw/{table}"), hour), state, clock)


def export_daily(
    lake: Lake, production_url: str, dataset: str, day: date, state: State, clock: Clock = SYSTEM_CLOCK
) -> Manifest:
    """Export one day of `processed/trades` or `aggregates/candles_1m`; see `export_partition`."""
    return export_partition(lake, production_url, partition_starting(lake_table(dataset), day), state, clock)


def export_partition(
    lake: Lake, production_url: str, partition: Partition, state: State, clock: Clock = SYSTEM_CLOCK
) -> Manifest:
    """Export one partition and return its manifest; the same rows give the same bytes.

    `open` over a closed partition changes nothing and returns the closed manifest. Raises HourNotClosed (the time runs
    still, or production has not closed it, or not again after late rows), PartitionBusy (another export writes it),
    LakeCorrupt (the rows streamed are not those counted in the same snapshot), SchemaMismatch, DatabaseUnavailable,
    LakeUnavailable, ConfigurationError.
    """
    _refuse_running(partition, state, clock)
    store = open_store(lake)
    with _alone(production_url, store, partition):
        if state == "open":
            current = read_manifest(store, partition.path)
            if current is not None and current.state == "closed":
                _log.info("%s is closed already and stays as it is", partition.path)
                return current
        with store.spool() as folder:
            with arrow_snapshot(production_url) as snapshot:
                closed_at = _last_close(snapshot, partition) if state == "closed" else None
                coverage_share = None if closed_at is None else _coverage_share(snapshot, partition)
                parts = _write(snapshot, partition, folder)
            manifest = Manifest(
                table=partition.table.key,
                partition=partition.key,
                state=state,
                rows=parts.rows,
                time_min=parts.time_min,
                time_max=parts.time_max,
                files=tuple(DataFile(file.path.name, file.bytes, file.sha256, file.rows) for file in parts.files),
                schema_version=dataset(partition.table).version,
                code_version=code_version(),
                exported_at=clock.now(),
                closed_at=closed_at,
                coverage_share=coverage_share,
            )
            publish(store, partition.path, parts, manifest)
    _log.info("%s: %d rows, %d bytes, %s", partition.path, manifest.rows, manifest.bytes, state)
    return manifest


def _write(snapshot: ArrowSnapshot, partition: Partition, folder: Path) -> Parts:
    """Write the rows of a partition and compare their number with that of the same snapshot."""
    data = dataset(partition.table)
    if partition.table.layer == "raw":
        counted = snapshot.table(queries.tickers_query(partition, data)).to_pydict()
        rows_per_ticker: dict[str, int] = dict(zip(counted["ticker"], counted["rows"], strict=True))
        expected = sum(rows_per_ticker.values())
    else:
        rows_per_ticker = {}
        expected = snapshot.table(queries.expected_query(partition)).column("rows")[0].as_py()
    # Closed before the snapshot: the driver refuses to leave a cursor open.
    with closing(_rows(snapshot, partition)) as unsorted, read_ahead(unsorted) as batches:
        if partition.table.layer != "raw":
            parts = write_parts(batches, data, folder)
        else:
            with read_ahead(in_order(batches, data, rows_per_ticker, folder), 1) as rows:
                parts = write_parts(rows, data, folder)
    if parts.rows != expected:
        raise LakeCorrupt(f"{partition.path}: {parts.rows} rows were read, but production holds {expected}")
    return parts


def _rows(snapshot: ArrowSnapshot, partition: Partition) -> Generator[pa.RecordBatch, None, None]:
    data = dataset(partition.table)
    for batch in snapshot.batches(queries.rows_query(partition, data)):
        yield shape(batch, data)


def _refuse_running(partition: Partition, state: State, clock: Clock) -> None:
    now = clock.now()
    if now < partition.start:
        raise HourNotClosed(f"{partition.table.key} {partition.key} lies in the future")
    if state == "closed" and now < partition.end:
        raise HourNotClosed(
            f"{partition.table.key} {partition.key} runs until {partition.end:%Y-%m-%d %H:%M} UTC;"
            " wait for it to end, or export it as it is with --open"
        )


def _last_close(snapshot: ArrowSnapshot, partition: Partition) -> datetime | None:
    """When the hours of the partition were closed last. Raises HourNotClosed when one is not, or not any more."""
    hours = snapshot.table(queries.closes_query(partition)).to_pylist()
    # Of a day only the hours that got rows must be closed: recording may have begun in the middle of it.
    wanted = [row for row in hours if partition.table.kind == "hourly" or row["active"]]
    unclosed = [row["hour"] for row in wanted if row["closed_at"] is None]
    reopened = [row["hour"] for row in wanted if row["reopened"]]
    if unclosed or reopened:
        what = f"production has not closed {_names(unclosed)}" if unclosed else ""
        late = f"rows came after the close of {_names(reopened)}" if reopened else ""
        raise HourNotClosed(
            f"{partition.table.key} {partition.key}: {' and '.join(filter(None, (what, late)))};"
            " run: kalshi-platform close-hour HOUR, or export what is there with --open"
        )
    return max((row["closed_at"] for row in hours if row["closed_at"] is not None), default=None)


def _coverage_share(snapshot: ArrowSnapshot, partition: Partition) -> float | None:
    """How much of the recorded markets' open time production knows to be complete; None where nothing can say it."""
    if partition.table.key != "raw/orderbook_deltas":
        return None
    share: float | None = snapshot.table(queries.coverage_query(partition)).column("share")[0].as_py()
    return share


def _names(hours: Sequence[datetime]) -> str:
    return ", ".join(f"{hour:%Y-%m-%dT%H}" for hour in hours)


@contextmanager
def _alone(production_url: str, store: ObjectStore, partition: Partition) -> Iterator[None]:
    database = Database(production_url, name="production")
    try:
        check(database, "production")
        with database.lease("lake export", store.root, partition.path) as lease:
            if lease is None:
                raise PartitionBusy(f"another export writes {partition.path}; try again when it is done")
            yield
    finally:
        database.dispose()
