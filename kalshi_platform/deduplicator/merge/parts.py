"""Rows of one table → production in transactions of their own: whole, or in ever smaller parts where it refuses.

What production still refuses as a single row goes aside; a refusal that no row is to blame for is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.merge import hour_activity, production
from kalshi_platform.deduplicator.merge import quarantine as aside
from kalshi_platform.errors import DatabaseUnavailable, OutOfPartitionBounds, StatementRejected
from kalshi_platform.storage.partitions import PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.sqlstate import OUT_OF_MEMORY, is_about_a_row

REFUSALS = (StatementRejected, DatabaseUnavailable, OutOfPartitionBounds, pa.ArrowException, OverflowError)
HOURS_AT_ONCE = 200
"""Of all tables in one transaction: each holds some places of the server's lock table until the commit."""


class TooManyHours(StatementRejected):
    """Rows lie in more hours than one transaction should touch; nothing was written."""


@dataclass
class Carried:
    """What came of rows: how many were new, by hour, and what was put aside."""

    inserted: dict[datetime, int] = field(default_factory=dict)
    asides: list[aside.Aside] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(self.inserted.values())


def is_splittable(error: Exception) -> bool:
    """Whether a part of what was refused may be accepted."""
    if isinstance(error, DatabaseUnavailable):
        return error.kind == OUT_OF_MEMORY  # of its lock table, which fewer hours need less of
    if isinstance(error, StatementRejected):
        return isinstance(error, TooManyHours) or is_about_a_row(error.sqlstate)
    return True


def refuse_many_hours(arrivals: production.Arrivals) -> None:
    """Raise TooManyHours where one transaction should not hold all rows."""
    if arrivals.hours > HOURS_AT_ONCE:
        raise TooManyHours(f"rows of {arrivals.hours} hours are too many for one transaction")


def carry(
    database: Database, table: str, rows: pl.DataFrame, keeper: PartitionKeeper, close_no: int | None = None
) -> Carried:
    """Insert rows of one table. `close_no`: the number of the close that brings them.

    Raises DatabaseUnavailable, and StatementRejected where no row is to blame.
    """
    carried = Carried()
    _carry(database, table, rows, keeper, close_no, carried)
    return carried


def _carry(
    database: Database, table: str, rows: pl.DataFrame, keeper: PartitionKeeper, close_no: int | None, into: Carried
) -> None:
    try:
        arrivals = production.Arrivals({table: rows}, keeper)
        refuse_many_hours(arrivals)
        with production.merging(database) as transaction:
            inserted = production.insert(transaction, arrivals)
            hour_activity.record_activity(transaction, inserted, close_no)
            aside.put(transaction, arrivals.asides, is_close=close_no is not None)
        _add(into, inserted.get(table, {}), arrivals.asides)
    except REFUSALS as error:
        if not is_splittable(error):
            raise
        if rows.height > 1:
            middle = rows.height // 2
            _carry(database, table, rows.head(middle), keeper, close_no, into)
            _carry(database, table, rows.slice(middle), keeper, close_no, into)
            return
        if isinstance(error, DatabaseUnavailable):
            raise
        refused = [aside.Aside(table, rows, aside.REFUSED, str(error))]
        with production.merging(database) as transaction:
            aside.put(transaction, refused, is_close=close_no is not None)
        _add(into, {}, refused)


def _add(into: Carried, inserted: Mapping[datetime, int], asides: list[aside.Aside]) -> None:
    for hour, count in inserted.items():
        into.inserted[hour] = into.inserted.get(hour, 0) + count
    into.asides += asides
