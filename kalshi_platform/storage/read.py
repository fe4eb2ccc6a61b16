"""Reads PostgreSQL as Arrow (ADBC) in bounded memory.

All queries of one `ArrowSnapshot` see one state of the database, the one at its opening (REPEATABLE READ), so a ledger
and the rows that it speaks of can be read together. Parameters are `$1`, `$2` … (see `literals.inlined`): they are put
into the query as literals, because a query with bound parameters comes back as a single batch of everything.
jsonb columns arrive as Arrow's JSON extension type; select `column::text` where plain strings are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, cast

import adbc_driver_manager
import adbc_driver_manager.dbapi as adbc
import adbc_driver_postgresql
import pyarrow as pa

from kalshi_platform.errors import KalshiPlatformError, StatementRejected
from kalshi_platform.storage.connect import connection_url, state_of_refusal
from kalshi_platform.storage.literals import inlined
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.sqlstate import first_line, is_transient_state, refusal_error, unavailable_error
from kalshi_platform.storage.urls import redacted

DEFAULT_BATCH_BYTES = 4 * 1024 * 1024
# A stream that breaks raises OSError from Arrow, everything else an error of the driver.
_FAILURES = (adbc_driver_manager.Error, OSError, pa.ArrowException)


class ArrowSnapshot:
    """A read-only view of one database at one moment. Raises DatabaseUnavailable or StatementRejected."""

    def __init__(self, connection: Any, url: str) -> None:
        self._connection = connection
        self.url = url
        self.where = redacted(url)
        """The database, for messages."""

    def export(self) -> str:
        """The name by which another transaction sees the same, while this one is open (SET TRANSACTION SNAPSHOT)."""
        return str(self.table(load("storage")["export_snapshot"]).column("snapshot")[0].as_py())

    def table(self, query: str, params: Sequence[Any] = ()) -> pa.Table:
        """Run a query; return everything."""
        statement = inlined(query, params)
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetch_arrow_table()
        except _FAILURES as error:
            raise _translate_error(error, self.where) from error

    def batches(
        self, query: str, params: Sequence[Any] = (), batch_bytes: int = DEFAULT_BATCH_BYTES
    ) -> Iterator[pa.RecordBatch]:
        """Run a query; yield record batches of about `batch_bytes`, never holding all of them.

        Other queries of the snapshot must wait until the batches are read, or the iterator is closed.
        """
        statement = inlined(query, params)
        cursor = self._connection.cursor()
        try:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(batch_bytes)})
            reader = self._first(cursor, statement)
            while (batch := self._next(reader)) is not None:
                yield batch
        finally:
            with suppress(*_FAILURES):
                cursor.close()

    def _first(self, cursor: Any, statement: str) -> Any:
        try:
            cursor.execute(statement)
            return cursor.fetch_record_batch()
        except _FAILURES as error:
            raise _translate_error(error, self.where) from error

    def _next(self, reader: Any) -> pa.RecordBatch | None:
        try:
            return reader.read_next_batch()
        except StopIteration:
            return None
        except _FAILURES as error:
            # A query that fails while its rows stream carries no SQLSTATE, only the server's message.
            if self._is_there():
                raise StatementRejected(f"{self.where}: {first_line(error)}") from error
            raise _translate_error(error, self.where) from error

    def _is_there(self) -> bool:
        """Whether the server still answers on this connection, be it that the transaction has failed."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(load("storage")["ping"])
        except _FAILURES as error:
            # The driver knows a failed transaction from a lost connection, and refuses a query in it by itself.
            status = getattr(error, "status_code", None)
            return bool(status == adbc_driver_manager.AdbcStatusCode.INVALID_STATE)
        return True


@contextmanager
def arrow_snapshot(url: str) -> Iterator[ArrowSnapshot]:
    """Open a snapshot of the database at `url`. Raises DatabaseUnavailable when the server is away."""
    where = redacted(url)
    target = connection_url(url, "kalshi-platform reader", "-c timezone=UTC")
    try:
        connection = _connect(target)
    except _FAILURES as error:
        raise refusal_error(where, first_line(error), state_of_refusal(target, str(error))) from error
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # The first query fixes what the transaction sees.
            cursor.execute(load("storage")["ping"])
            cursor.fetchall()
    except _FAILURES as error:
        _close(connection)
        raise _translate_error(error, where) from error
    try:
        yield ArrowSnapshot(connection, url)
    finally:
        _close(connection)


class _KeptDatabase:
    """A database as the driver knows it, which outlives the connections that use it."""

    def __init__(self, database: adbc_driver_manager.AdbcDatabase) -> None:
        self.database = database

    def close(self) -> None:
        """Keep it: the connection that ends is one of many."""


@lru_cache(maxsize=16)
def _kept_database(target: str) -> _KeptDatabase:
    """Return what the driver knows of a database: its types, of which every partition makes two.

    Asking for them takes 70 ms where there are 900, opening a connection 5. Our columns are of PostgreSQL's own types,
    so what is kept stays true while tables come and go.
    """
    return _KeptDatabase(adbc_driver_postgresql.connect(target))


def _connect(target: str) -> adbc.Connection:
    kept = _kept_database(target)
    connection = adbc_driver_manager.AdbcConnection(kept.database)
    return adbc.Connection(cast(adbc_driver_manager.AdbcDatabase, kept), connection, autocommit=False)


def _close(connection: Any) -> None:
    if connection is not None:
        with suppress(*_FAILURES):
            connection.close()


def _translate_error(error: BaseException, where: str) -> KalshiPlatformError:
    sqlstate = getattr(error, "sqlstate", None)
    if (sqlstate and not is_transient_state(sqlstate)) or _is_of_arrow(error):
        return StatementRejected(f"{where}: {first_line(error)}", sqlstate=sqlstate)
    return unavailable_error(where, first_line(error), sqlstate)


def _is_of_arrow(error: BaseException) -> bool:
    return isinstance(error, pa.ArrowException) and not isinstance(error, OSError)
