"""Opens pooled connections, transactions and advisory locks.

`Database` is one database with a small pool; `Transaction` is what everything else in the package writes SQL through.
Statements use psycopg2's `%(name)s` parameters.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg2
import psycopg2.extras
import pyarrow as pa
import sqlalchemy

from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.market.tables import Table
from kalshi_platform.storage import copy
from kalshi_platform.storage.connect import connect, connection_url
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.sqlstate import DRIVER_ERRORS, READ_ONLY, translate_error
from kalshi_platform.storage.urls import libpq_url, redacted

Params: TypeAlias = Mapping[str, Any] | Sequence[Any] | None
Row: TypeAlias = tuple[Any, ...]

# The server's side of the keep-alives: the locks of a client whose machine vanished are freed as soon.
_SESSION = (
    "-c timezone=UTC -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=25000"
    # TimescaleDB's: a change of old rows decompresses all that it might concern, and is refused beyond some.
    " -c timescaledb.max_tuples_decompressed_per_dml_transaction=0"
)


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

    def lock(self, name: str) -> None:
        """Wait for the advisory lock of a name and hold it until this transaction ends."""
        self.execute(load("storage")["lock_until_commit"], (name,))

    def insert_new(self, table: Table, data: pa.Table, *, where: str = "", likely_new: bool = False) -> int:
        """Insert the rows that are not there yet (staged binary COPY, ON CONFLICT DO NOTHING); return how many.

        `where` is an optional WHERE clause over the staged row `s` (an anti-join, say). `likely_new` makes it cheaper
        when indeed no row is there, and dearer when one is.
        """
        return copy.insert_new(self.connection, table, data, where=where, likely_new=likely_new)

    def stage(self, table: Table, data: pa.Table) -> str:
        """Copy rows into a temporary table of the same columns; return its name. Once per table and transaction.

        It is empty again after the transaction.
        """
        return copy.stage(self.connection, table, data)


class Database:
    """One database. Losing the server raises DatabaseUnavailable; the next call connects anew.

    A statement that the server refuses raises StatementRejected. Both texts are free of secrets.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        application: str = "kalshi-platform",
        pool_size: int = 4,
        statement_timeout_s: float | None = None,
    ) -> None:
        """`statement_timeout_s`: what takes longer (it waits for a lock, say) raises DatabaseUnavailable."""
        self.name = name
        self.url = libpq_url(url)
        self._application = application
        limit_ms = None if statement_timeout_s is None else max(1, int(statement_timeout_s * 1_000))
        self._options = _SESSION if limit_ms is None else f"{_SESSION} -c statement_timeout={limit_ms}"
        # libpq alone reads the URL, so that one password means the same to every reader of it.
        self._engine = sqlalchemy.create_engine(
            "postgresql+psycopg2://",
            creator=lambda: self._connect(application),
            pool_size=pool_size,
            max_overflow=4,
            pool_pre_ping=True,
        )

    def __repr__(self) -> str:
        return f"Database({self.name}, {redacted(self.url)})"

    @contextmanager
    def transaction(self, *, isolation: str | None = None) -> Iterator[Transaction]:
        """Open a transaction. `isolation`: e.g. "REPEATABLE READ" for one snapshot over several queries."""
        try:
            fairy = self._engine.raw_connection()
        except DRIVER_ERRORS as error:
            raise translate_error(error, self._where()) from error
        connection: Any = fairy.driver_connection
        is_stale = False
        try:
            if isolation is not None:
                with connection.cursor() as cursor:
                    cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
            yield Transaction(connection)
            connection.commit()
        except DRIVER_ERRORS as error:
            failure = translate_error(error, self._where(), connection)
            # A session stays read-only after its database was opened for writes, or its address names another server.
            is_stale = isinstance(failure, DatabaseUnavailable) and failure.kind == READ_ONLY
            raise failure from error
        finally:
            # A connection whose transaction cannot be rolled back is of no use to the next one.
            if is_stale or connection.closed or not _rolled_back(connection):
                fairy.invalidate()
            fairy.close()

    @contextmanager
    def advisory_lock(self, *key: str) -> Iterator[AdvisoryLock | None]:
        """Hold a session-level advisory lock on a connection of its own; yield None when another session holds it."""
        lock = self._try_lock("/".join(key))
        try:
            yield lock
        finally:
            if lock is not None:
                lock.close()

    def _try_lock(self, key: str) -> AdvisoryLock | None:
        connection = None
        held = False
        try:
            connection = self._connect(f"{self._application} lock")
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(load("storage")["try_lock"], (key,))
                held = bool(cursor.fetchone()[0])
            return AdvisoryLock(connection, self._where()) if held else None
        except psycopg2.Error as error:
            raise translate_error(error, self._where()) from error
        finally:
            if connection is not None and not held:
                connection.close()

    def dispose(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    def _connect(self, application: str) -> Any:
        return connect(connection_url(self.url, application, self._options))

    def _where(self) -> str:
        return f"database {self.name} ({redacted(self.url)})"


class AdvisoryLock:
    """An advisory lock held by a connection of its own; the server frees it when the process dies."""

    def __init__(self, connection: Any, where: str) -> None:
        self._connection = connection
        self._where = where
        self._lock = threading.Lock()

    def is_held(self) -> bool:
        """Check with the server; False means the connection, and with it the lock, is gone."""
        with self._lock:
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute(load("storage")["ping"])
            except psycopg2.Error:
                return False
            return True

    def fetch_one(self, statement: str, params: Params = None) -> Row | None:
        """Run a statement in the session that holds the lock, so that it takes effect only while that is so.

        Returns its first row, None without one. Raises DatabaseUnavailable and StatementRejected.
        """
        with self._lock:
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute(statement, params)
                    row = cursor.fetchone() if cursor.description else None
                    return None if row is None else tuple(row)
            except psycopg2.Error as error:
                raise translate_error(error, self._where, self._connection) from error

    def take(self, *key: str) -> bool:
        """Take another lock in this session; return False when another session holds it. Raises DatabaseUnavailable."""
        row = self.fetch_one(load("storage")["try_lock"], ("/".join(key),))
        return row is not None and bool(row[0])

    def is_free(self, *key: str) -> bool:
        """Return whether no session holds another lock. Raises DatabaseUnavailable."""
        name = ("/".join(key),)
        row = self.fetch_one(load("storage")["try_lock"], name)
        if row is None or not row[0]:
            return False
        self.fetch_one(load("storage")["release_lock"], name)
        return True

    def close(self) -> None:
        """Give the lock back."""
        with self._lock:
            self._connection.close()


def _rolled_back(connection: Any) -> bool:
    try:
        connection.rollback()
    except psycopg2.Error:
        return False
    return True
