"""Figures that materializations carry: rows, time span, bytes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kalshi_platform.market.tables import GATHERER_TABLES, PRODUCTION_TABLES, Table
from kalshi_platform.storage.pool import Database


def span(first: datetime | None, last: datetime | None) -> dict[str, Any]:
    """The time span of some rows; nothing for no rows."""
    if first is None or last is None:
        return {}
    return {"time_min": first.isoformat(), "time_max": last.isoformat()}


def rows_between(database: Database, table: Table, low: datetime, high: datetime) -> dict[str, Any]:
    """Rows of a time-series table with low <= time < high, and their span."""
    column = table.time_column
    with database.transaction() as transaction:
        row = transaction.fetch_one(
            f"SELECT count(*), min({column}), max({column}) FROM {table.name}"  # noqa: S608 (names from our own schema)
            f" WHERE {column} >= %(low)s AND {column} < %(high)s",
            {"low": low, "high": high},
        )
    count, first, last = row or (0, None, None)
    return {"dagster/row_count": int(count), **span(first, last)}


def production_rows(database: Database, table: str, low: datetime, high: datetime) -> dict[str, Any]:
    """The same for a production table."""
    return rows_between(database, PRODUCTION_TABLES[table], low, high)


def gatherer_rows(database: Database, table: str, low: datetime, high: datetime) -> dict[str, Any]:
    """The same for a gatherer's table."""
    return rows_between(database, GATHERER_TABLES[table], low, high)


def duplicate_trades(database: Database, low: datetime, high: datetime) -> tuple[int, int]:
    """(rows, distinct ids) of production's trades with low <= exchange_ts < high."""
    with database.transaction() as transaction:
        row = transaction.fetch_one(
            "SELECT count(*), count(DISTINCT (ticker, trade_id)) FROM trades"
            " WHERE exchange_ts >= %(low)s AND exchange_ts < %(high)s",
            {"low": low, "high": high},
        )
    return (int(row[0]), int(row[1])) if row else (0, 0)
