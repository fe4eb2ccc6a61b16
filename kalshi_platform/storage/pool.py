"""Connections and transactions.

`Database` is one database with a small pool; `Transaction` is what everything else in the package writes SQL through.
Statements use psycopg2's `%(name)s` parameters.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pyarrow as pa
import sqlalchemy
import sqlalchemy.exc
import sqlalchemy.pool

from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.storage import bulk
from kalshi_platform.storage.tables import StreamTable
from kalshi_platform.storage.urls import libpq_url, redacted, sqlalchemy_url

Params: TypeAlias = Mapping[str, Any] | Sequence[Any] | None
Row: TypeAlias = tuple[Any, ...]

_AWAY = (psycopg2.OperationalError, psycopg2.InterfaceError)


class Transaction:
    """One open transaction; commits when its `with` block ends without an exception."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def execute(self, statement: str, params: Params = None) -> int:
        """Run a statement; return the number of rows it touched."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, params)
            return int(cursor.rowcount)

    def execute_values(self, statement: str, rows: Sequence[Sequence[Any]], template: str | None = None) -> int:
        """Run `INSERT … VALUES %s …` once for all rows; return the number of rows it touched."""
        if not rows:
            return 0
        with self.connection.cursor() as cursor:
            psycopg2.extras.execute_values(cursor, statement, rows, template=template, page_size=len(rows))
            return int(cursor.rowcount)

    def fetch_all(self, statement: str, params: Params = None) -> list[Row]:
        """Run a query; return all rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, params)
            return list(cursor.fetchall())

    def fetch_one(self, statement: str, params: Params = None) -> Row | None:
        """Run a query; return the first row or None."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, params)
            row = cursor.fetchone()
            return None if row is None else tuple(row)

    def insert_new(self, table: StreamTable, data: pa.Table, *, where: str = "") -> int:
        """Insert the rows that are not there yet (staged binary COPY, ON CONFLICT DO NOTHING); return how many.

        `where` is an optional SQL condition over the staged row `s` (an anti-join, say).
        """
        return bulk.insert_new(self.connection, table, data, where=where)


class Database:
    """One database. Losing the server raises DatabaseUnavailable; the next call connects anew."""

    def __init__(self, url: str, *, name: str, application: str = "kalshi-platform", pool_size: int = 4) -> None:
        self.name = name
        self.url = libpq_url(url)
        self._application = application
        self._engine = sqlalchemy.create_engine(
            sqlalchemy_url(url),
            pool_size=pool_size,
            max_overflow=4,
            pool_pre_ping=True,
            connect_args=_connect_args(application),
        )

    def __repr__(self) -> str:
        return f"Database({self.name}, {redacted(self.url)})"

    @contextmanager
    def transaction(self, *, isolation: str | None = None) -> Iterator[Transaction]:
        """Open a transaction. `isolation`: e.g. "REPEATABLE READ" for one snapshot over several queries."""
        try:
            fairy = self._engine.raw_connection()
        except (sqlalchemy.exc.DBAPIError, *_AWAY) as error:
            raise self._away(error) from error
        try:
            connection = fairy.driver_connection
            try:
                if isolation is not None:
                    with connection.cursor() as cursor:  # type: ignore[union-attr]
                        cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
                yield Transaction(connection)
                fairy.commit()
            except BaseException:
                _rollback(fairy)
                raise
        except _AWAY as error:
            fairy.invalidate()
            raise self._away(error) from error
        finally:
            fairy.close()

    @contextmanager
    def lease(self, *key: str) -> Iterator[Lease | None]:
        """Hold a session-level advisory lock on a connection of its own; yields None when somebody else holds it."""
        try:
            connection = psycopg2.connect(self.url, **_connect_args(f"{self._application} lease"))
        except psycopg2.Error as error:
            raise self._away(error) from error
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", ("/".join(key),))
                held = bool(cursor.fetchone()[0])
            yield Lease(connection) if held else None
        finally:
            connection.close()

    def dispose(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    def _away(self, error: BaseException) -> DatabaseUnavailable:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return DatabaseUnavailable(f"database {self.name} ({redacted(self.url)}): {reason}")


class Lease:
    """An advisory lock held by a connection of its own; the server frees it when the process dies."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def is_held(self) -> bool:
        """Ask the server; False means the connection, and with it the lock, is gone."""
        with self._lock:
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
            except psycopg2.Error:
                return False
            return True


def _connect_args(application: str) -> dict[str, Any]:
    # Keep-alives end a half-open connection to a vanished server within about half a minute.
    return {
        "application_name": application,
        "connect_timeout": 5,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "options": "-c timezone=UTC",
    }


def _rollback(fairy: sqlalchemy.pool.PoolProxiedConnection) -> None:
    try:
        fairy.rollback()
    except _AWAY:
        fairy.invalidate()
