"""Inserts rows into production, hour by hour, each under the rule that says whether it is new there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from kalshi_platform.deduplicator.merge.dead_letters import (
    NO_PARTITION,
    OUT_OF_BOUNDS,
    QuarantinedRows,
    split_long_names,
)
from kalshi_platform.deduplicator.merge.deduplicate import LIFECYCLE_IDENTITY, TRADE_IDENTITY, insert_rounds
from kalshi_platform.errors import StatementRejected
from kalshi_platform.market.identity import LIFECYCLE_WINDOW_US, TRADE_WINDOW_US
from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform.storage.literals import literal
from kalshi_platform.storage.partitions import PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.sqlstate import is_about_a_row

_SQL = load(Path(__file__).with_name("queries.sql"))

_LOCK = "kalshi-platform merge into production"


class RowsByHour:
    """Rows for production by table and hour, with their partitions made. `quarantined`: rows that cannot have one."""

    def __init__(self, tables: Mapping[str, pl.DataFrame], keeper: PartitionKeeper) -> None:
        """Raises DatabaseUnavailable."""
        low_us, high_us = keeper.bounds_us()
        low, high = datetime_from_us(low_us), datetime_from_us(high_us)
        self.by_hour: dict[str, dict[datetime, pl.DataFrame]] = {}
        self.quarantined: list[QuarantinedRows] = []
        for table, rows in tables.items():
            time = PRODUCTION_TABLES[table].time_column
            inside, too_long = split_long_names(table, rows)
            self.quarantined += too_long
            is_inside = (pl.col(time) >= low) & (pl.col(time) < high)
            outside = inside.filter(~is_inside)
            if outside.height:
                detail = f"its time is not within {low.isoformat()} and {high.isoformat()}"
                self.quarantined.append(QuarantinedRows(table, outside, OUT_OF_BOUNDS, detail))
                inside = inside.filter(is_inside)
            hours = inside.group_by(pl.col(time).dt.truncate("1h").alias("_hour"), maintain_order=True)
            parts = {hour: part for (hour,), part in hours}
            self._make_partitions(table, parts, keeper)
            if parts:
                self.by_hour[table] = parts

    @property
    def hours(self) -> int:
        """How many hours the rows lie in, those of different tables counted apart."""
        return sum(map(len, self.by_hour.values()))

    def _make_partitions(self, table: str, parts: dict[datetime, pl.DataFrame], keeper: PartitionKeeper) -> None:
        """Make the partitions; an hour that cannot have one leaves `parts`."""
        try:
            keeper.ensure_hours(table, [us_from_datetime(hour) for hour in parts])
        except StatementRejected as error:
            if not is_about_a_row(error.sqlstate):
                raise
            for hour in list(parts):
                try:
                    keeper.ensure_hours(table, [us_from_datetime(hour)])
                except StatementRejected as reason:
                    self.quarantined.append(QuarantinedRows(table, parts.pop(hour), NO_PARTITION, str(reason)))


@contextmanager
def merge_transaction(production: Database) -> Iterator[Transaction]:
    """A transaction in which no other merge or close writes, so that anti-joins see all rows that are there."""
    with production.transaction() as transaction:
        transaction.execute(_SQL["lock_merge"], (_LOCK,))
        # The staged rows have no statistics; nested loops over a minute of trades for each of them would be chosen.
        transaction.execute(_SQL["disable_nested_loops"])
        yield transaction


def insert_new_rows(transaction: Transaction, rows_by_hour: RowsByHour) -> dict[str, dict[datetime, int]]:
    """Insert the rows that are new; return how many by table and hour (zeros left out)."""
    inserted: dict[str, dict[datetime, int]] = {}
    for table, hours in rows_by_hour.by_hour.items():
        for hour, rows in hours.items():
            # Hour by hour, so that it is known which hours got rows; most passes have one.
            count = sum(_insert_round(transaction, table, part) for part in insert_rounds(table, rows))
            if count:
                inserted.setdefault(table, {})[hour] = count
    return inserted


def _insert_round(transaction: Transaction, table: str, rows: pl.DataFrame) -> int:
    data = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    return transaction.insert_new(PRODUCTION_TABLES[table], data, where=_condition_of_new(table, rows))


def _condition_of_new(table: str, rows: pl.DataFrame) -> str:
    """The condition on a staged row `s` that the key of the table cannot express; "" where it can."""
    if table == "trades":
        return _has_no_equal(table, rows, TRADE_IDENTITY, TRADE_WINDOW_US)
    if table == "market_lifecycle":
        return _has_no_equal(table, rows, LIFECYCLE_IDENTITY, LIFECYCLE_WINDOW_US)
    return ""


def _has_no_equal(table: str, rows: pl.DataFrame, identity: tuple[str, str], window_us: int) -> str:
    market, name = identity
    time = PRODUCTION_TABLES[table].time_column
    window = timedelta(microseconds=window_us)
    span: pl.Series = rows.get_column(time)
    low, high = span.min(), span.max()
    return _SQL["without_equal"].format(
        table=table,
        market=market,
        name=name,
        time=time,
        low=literal(low - window),  # type: ignore[operator]
        high=literal(high + window),  # type: ignore[operator]
        window_us=window_us,
    )
