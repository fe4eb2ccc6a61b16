"""Fills columns that rows of production lack with what gatherers hold now, as after an hour was rebuilt from frames.

A merge inserts rows whose key is new and leaves the others as they are; so a column that a gatherer's old rows got
later reaches production here. Values that are there stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.merge.deduplicate import PRODUCTION_KEYS, deduplicate
from kalshi_platform.deduplicator.merge.production import merge_transaction
from kalshi_platform.deduplicator.merge.source import read_between
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.market.tables import GATHERER_TABLES, MERGED_TABLES, PRODUCTION_TABLES, Column
from kalshi_platform.market.times import HOUR
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.progress import report_each
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import arrow_snapshot

_SQL = load(Path(__file__).with_name("queries.sql"))
_log = event_logger(__name__)
# What one transaction fills: merges wait while it does.
_ROWS_AT_ONCE = 100_000


def fill_columns(settings: DeduplicatorSettings, hour: datetime) -> dict[str, int]:
    """Fill what rows of the hour lack in production; return by table how many rows got a value (zeros left out).

    The hour is to be closed again after it, so that the lake follows. Raises DatabaseUnavailable, SchemaMismatch.
    """
    database = Database(settings.production_url, name="production", pool_size=1)
    filled: dict[str, int] = {}
    try:
        check(database, "production")
        for table in report_each("tables filled", MERGED_TABLES):
            lacking = _find_lacking(database, table, hour)
            for source in settings.sources if lacking else ():
                for rows in _read_rows(source, table, hour, lacking):
                    count = _fill(database, table, rows, lacking, hour)
                    if count:
                        filled[table] = filled.get(table, 0) + count
    finally:
        database.dispose()
    _log.info("columns_filled", hour=hour.isoformat(), rows=filled)
    return filled


def _find_lacking(database: Database, table: str, hour: datetime) -> list[Column]:
    """Find the columns that gatherers have too, and that rows of the hour lack in production."""
    shared = set(GATHERER_TABLES[table].names)
    columns = [each for each in PRODUCTION_TABLES[table].written if each.nullable and each.name in shared]
    if not columns:
        return []
    statement = _SQL["find_lacking_columns"].format(
        table=table,
        time=PRODUCTION_TABLES[table].time_column,
        are_lacking=", ".join(f"bool_or({column.name} IS NULL)" for column in columns),
    )
    with database.transaction() as transaction:
        row = transaction.fetch_one(statement, {"low": hour, "high": hour + HOUR}) or ()
    return [column for column, is_lacking in zip(columns, row, strict=True) if is_lacking]


def _read_rows(source: GathererSource, table: str, hour: datetime, lacking: Sequence[Column]) -> Iterator[pl.DataFrame]:
    """Yield a gatherer's rows of the hour that have a value where production lacks some, in production's columns."""
    has_value = pl.any_horizontal(pl.col(column.name).is_not_null() for column in lacking)
    with arrow_snapshot(source.timeseries_url) as snapshot:
        waiting: list[pa.RecordBatch] = []
        for batch in read_between(snapshot, table, hour, hour + HOUR):
            wanted = pl.DataFrame(batch).filter(has_value)
            if wanted.height:
                waiting += wanted.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()
            if sum(each.num_rows for each in waiting) >= _ROWS_AT_ONCE:
                yield deduplicate(table, {source.name: pa.Table.from_batches(waiting)})
                waiting = []
        if waiting:
            yield deduplicate(table, {source.name: pa.Table.from_batches(waiting)})


def _fill(database: Database, table: str, rows: pl.DataFrame, lacking: Sequence[Column], hour: datetime) -> int:
    definition = PRODUCTION_TABLES[table]
    values = {
        column.name: f"s.{column.name}::jsonb" if column.type == "jsonb" else f"s.{column.name}" for column in lacking
    }
    with merge_transaction(database) as transaction:
        stage = transaction.stage(definition, rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
        statement = _SQL["fill_lacking_columns"].format(
            table=table,
            stage=stage,
            time=definition.time_column,
            values=", ".join(f"{name} = coalesce(t.{name}, {value})" for name, value in values.items()),
            key=" AND ".join(f"t.{name} = s.{name}" for name in PRODUCTION_KEYS[table]),
            is_lacking=" OR ".join(f"(t.{name} IS NULL AND s.{name} IS NOT NULL)" for name in values),
        )
        return transaction.execute(statement, {"low": hour, "high": hour + HOUR})
