"""Inserts rows of one table into production in transactions of their own, whole or, where it refuses, in parts.

A row that production refuses alone goes to its dead letters; a refusal that no row is to blame for is raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.merge import hour_activity, production
from kalshi_platform.deduplicator.merge.dead_letters import REFUSED, QuarantinedRows, write_dead_letters
from kalshi_platform.errors import DatabaseUnavailable, OutOfPartitionBounds, StatementRejected
from kalshi_platform.storage.partitions import PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.quarantine import TooManyPartitions, may_pass_in_parts, write_in_parts

_REFUSALS = (
    StatementRejected,
    DatabaseUnavailable,
    OutOfPartitionBounds,
    TooManyPartitions,
    pa.ArrowException,
    OverflowError,
)
_MOST_HOURS = 200
"""Of all tables in one transaction: each holds some places of the server's lock table until the commit."""


@dataclass
class InsertResult:
    """How many rows were new, by hour, and the rows that were quarantined."""

    inserted: dict[datetime, int] = field(default_factory=dict)
    quarantined: list[QuarantinedRows] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows inserted into all tables."""
        return sum(self.inserted.values())

    @property
    def rows_quarantined(self) -> int:
        """Rows that production refused and that were put aside."""
        return sum(each.rows.height for each in self.quarantined)


def is_splittable(error: Exception) -> bool:
    """Return whether production may accept a part of the rows that it refused with this error."""
    return isinstance(error, _REFUSALS) and may_pass_in_parts(error)


def check_hour_count(rows: production.RowsByHour) -> None:
    """Raise TooManyPartitions where one transaction should not hold all rows."""
    if rows.hours > _MOST_HOURS:
        raise TooManyPartitions(f"rows of {rows.hours} hours are too many for one transaction")


def insert_in_parts(
    database: Database, table: str, rows: pl.DataFrame, keeper: PartitionKeeper, close_no: int | None = None
) -> InsertResult:
    """Insert rows of one table. `close_no`: the number of the close that brings them; None for a live merge.

    Raises DatabaseUnavailable, and StatementRejected where no row is to blame. Parts that were inserted before stay:
    repeating all of it inserts nothing twice.
    """
    result = InsertResult()

    def insert(part: pl.DataFrame) -> None:
        by_hour = production.RowsByHour({table: part}, keeper)
        check_hour_count(by_hour)
        with production.merge_transaction(database) as transaction:
            inserted = production.insert_new_rows(transaction, by_hour)
            hour_activity.record_activity(transaction, inserted, close_no)
            write_dead_letters(transaction, by_hour.quarantined, is_close=close_no is not None)
        for hour, count in inserted.get(table, {}).items():
            result.inserted[hour] = result.inserted.get(hour, 0) + count
        result.quarantined += by_hour.quarantined

    def quarantine(row: pl.DataFrame, error: Exception) -> None:
        refused = QuarantinedRows(table, row, REFUSED, str(error))
        with production.merge_transaction(database) as transaction:
            write_dead_letters(transaction, [refused], is_close=close_no is not None)
        result.quarantined.append(refused)

    write_in_parts(rows, insert, quarantine, is_splittable)
    return result
