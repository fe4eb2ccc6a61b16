"""Reads rows of one gatherer as Arrow: by batch number for the live merge, by time for the close of an hour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa

from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.market.tables import GATHERER_TABLES, MERGED_TABLES
from kalshi_platform.market.times import HOUR
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform.storage.migrate import DatabaseKind, check
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot

_SQL = load(Path(__file__).with_name("queries.sql"))

Window = tuple[datetime, datetime]
HOURS_AT_ONCE = timedelta(hours=240)
"""In one snapshot: every partition that it touches holds places of the server's lock table until its end."""
_MICROSECOND = timedelta(microseconds=1)
_MOST_HOURS = 14 * 24
_WEIGHTS: Mapping[str, int] = {"orderbook_snapshots": 20, "market_lifecycle": 5}
"""How many rows of another table the memory for one row of these is worth, at least: they have no common size."""
_BYTES_OF_A_ROW = 100
"""What one of those other rows has, as Arrow."""


def weigh_rows(table: str, rows: int, size: int | None) -> int:
    """Return how many common rows take as much memory as these. `size`: their bytes as Arrow, None if not known."""
    weight = _WEIGHTS.get(table)
    return rows if weight is None else max(rows * weight, (size or 0) // _BYTES_OF_A_ROW)


def check_source(source: GathererSource, kind: DatabaseKind = "timeseries") -> None:
    """Raise SchemaMismatch, naming the remedy, when a database of the gatherer is not what this version reads."""
    url = source.catalog_url if kind == "catalog" else source.timeseries_url
    database = Database(url, name=f"{source.name} {kind}", pool_size=1)
    try:
        check(database, kind)
    finally:
        database.dispose()


def read_batches(snapshot: ArrowSnapshot, table: str, after: int, until: int, windows: Sequence[Window]) -> pa.Table:
    """Read rows of `table` committed with after < batch_no ≤ until.

    The windows (inclusive, disjoint) say where these batches lie in time, so that only their partitions are touched.
    """
    query = _select("read_rows_of_batches", table)
    return _concatenate(table, [snapshot.table(query, (after, until, low, high)) for low, high in windows])


def group_windows(windows: Sequence[Window], longest: timedelta) -> list[list[Window]]:
    """Group windows so that each group spans at most `longest`; longer windows are cut."""
    groups: list[list[Window]] = [[]]
    room = longest
    for low, high in windows:
        while high - low > room:
            if room:
                # Windows are inclusive at both ends.
                groups[-1].append((low, low + room - _MICROSECOND))
                low += room  # noqa: PLW2901 - the rest of the window
            groups.append([])
            room = longest
        groups[-1].append((low, high))
        room -= high - low
    return groups


def partitioned_windows(snapshot: ArrowSnapshot, table: str, windows: Sequence[Window]) -> list[Window]:
    """Return the parts of wide windows that have partitions; all of them if partitions are not named by their time."""
    if sum((high - low for low, high in windows), timedelta()) <= HOURS_AT_ONCE:
        return list(windows)
    found = snapshot.table(_SQL["find_partitions"], (table,))
    parts: list[Window] = []
    for row in found.to_pylist():
        start, end = row["low"], row["high"] - _MICROSECOND
        if parts and start - parts[-1][1] <= _MICROSECOND:
            parts[-1] = (parts[-1][0], end)
        else:
            parts.append((start, end))
    if not parts:
        return list(windows)
    return sorted(
        (max(low, start), min(high, end))
        for low, high in windows
        for start, end in parts
        if low <= end and high >= start
    )


def read_between(snapshot: ArrowSnapshot, table: str, low: datetime, high: datetime) -> Iterator[pa.RecordBatch]:
    """Read rows of `table` with low ≤ time < high, whatever batch brought them, a few megabytes at a time."""
    wanted = arrow_schema(GATHERER_TABLES[table], "batch_no")
    for batch in snapshot.batches(_select("read_rows_between", table), (low, high)):
        yield from pa.Table.from_batches([batch]).cast(wanted).to_batches()


def estimate_rows(snapshot: ArrowSnapshot, low: datetime, high: datetime) -> Mapping[str, int]:
    """Return how many weighted rows of each merged table lie in [low, high) at most (whole batches are counted)."""
    found = snapshot.table(
        # As the index over the times of batches has it.
        _SQL["estimate_rows"],
        (low, high),
    )
    counts = {row["table_name"]: weigh_rows(*row.values()) for row in found.to_pylist()}
    return {table: counts.get(table, 0) for table in MERGED_TABLES}


def find_incomplete_tables(snapshot: ArrowSnapshot, low: datetime, high: datetime) -> frozenset[str]:
    """Return merged tables of which the gatherer holds less of [low, high) than its own ledger recorded.

    The answer holds for the rest of the snapshot: the partitions stay locked against a drop.
    """
    found = snapshot.table(_SQL["find_incomplete_tables"], (list(MERGED_TABLES), low, high))
    return frozenset(str(name) for name in found.column("name").to_pylist())


def find_dropped_until(snapshot: ArrowSnapshot, low: datetime, high: datetime) -> datetime | None:
    """Return the end of the last hour of [low, high) whose deltas the gatherer no longer has; None if it has all.

    No row is read for it. Hours further back than _MOST_HOURS are taken for gone.
    """
    earliest = high - _MOST_HOURS * HOUR
    found = snapshot.table(_SQL["find_last_dropped_hour"], (max(low, earliest), high))
    hour: datetime | None = found.column("hour")[0].as_py()
    if hour is None:
        return None if low >= earliest else earliest
    return hour + HOUR


def _select(statement: str, table: str) -> str:
    columns = ", ".join(
        f"{column.name}::text AS {column.name}" if column.type == "jsonb" else column.name
        for column in GATHERER_TABLES[table].written
        if column.name != "batch_no"
    )
    return _SQL[statement].format(columns=columns, table=table, time=GATHERER_TABLES[table].time_column)


def _concatenate(table: str, parts: Sequence[pa.Table]) -> pa.Table:
    wanted = arrow_schema(GATHERER_TABLES[table], "batch_no")
    # The driver adds metadata to the fields; without it tables of several queries are alike.
    return pa.concat_tables([part.cast(wanted) for part in parts]) if parts else wanted.empty_table()
