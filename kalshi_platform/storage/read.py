"""PostgreSQL → Arrow (ADBC), in bounded memory.

All queries of one `ArrowSnapshot` see one state of the database (REPEATABLE READ), so a ledger and the rows that it
speaks of can be read together. Parameters are `$1`, `$2` … (ints, texts, aware datetimes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa

from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.storage.urls import libpq_url, redacted

DEFAULT_BATCH_BYTES = 4 * 1024 * 1024


class ArrowSnapshot:
    """A read-only view of one database at one moment."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def table(self, query: str, params: Sequence[Any] = ()) -> pa.Table:
        """Run a query; return everything."""
        with self._connection.cursor() as cursor:
            cursor.execute(query, _bind(params))
            return cursor.fetch_arrow_table()

    def batches(
        self, query: str, params: Sequence[Any] = (), batch_bytes: int = DEFAULT_BATCH_BYTES
    ) -> Iterator[pa.RecordBatch]:
        """Run a query; yield record batches of about `batch_bytes`, never holding all of them."""
        with self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(batch_bytes)})
            cursor.execute(query, _bind(params))
            yield from cursor.fetch_record_batch()


@contextmanager
def arrow_snapshot(url: str) -> Iterator[ArrowSnapshot]:
    """Open a snapshot of the database at `url`. Raises DatabaseUnavailable when the server is away."""
    try:
        connection = adbc.connect(libpq_url(url), autocommit=False)
    except adbc_driver_manager.Error as error:
        raise DatabaseUnavailable(f"{redacted(url)}: {str(error).strip().splitlines()[0]}") from error
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute("SET LOCAL TIME ZONE 'UTC'")
        yield ArrowSnapshot(connection)
    except adbc_driver_manager.OperationalError as error:
        raise DatabaseUnavailable(f"{redacted(url)}: {str(error).strip().splitlines()[0]}") from error
    finally:
        connection.close()


def _bind(params: Sequence[Any]) -> pa.RecordBatch | None:
    if not params:
        return None
    columns = []
    for value in params:
        if isinstance(value, datetime):
            columns.append(pa.array([value], pa.timestamp("us", tz="UTC")))
        elif isinstance(value, int):
            columns.append(pa.array([value], pa.int64()))
        else:
            columns.append(pa.array([value], pa.string()))
    return pa.RecordBatch.from_arrays(columns, names=[str(index) for index in range(len(columns))])
