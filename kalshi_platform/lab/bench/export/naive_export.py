"""The naive export: a named cursor, chunks of rows as `pandas.read_sql(…, chunksize=…)` takes them, plain Parquet.

It writes the rows as they come: no order, no manifest, no check of what was read.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from pathlib import Path

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.storage.arrow import arrow_schema

CHUNK_ROWS = 50_000


def export_naively(production_url: str, folder: Path, table: str, hour: datetime) -> tuple[int, int]:
    """Write the hour into one file of `folder`; return its rows and bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "naive.parquet"
    schema = arrow_schema(PRODUCTION_TABLES[table])
    names = ", ".join(schema.names)
    written = 0
    with (
        contextlib.closing(psycopg2.connect(production_url)) as connection,
        connection.cursor("rows") as cursor,
        pq.ParquetWriter(path, schema) as writer,
    ):
        cursor.itersize = CHUNK_ROWS
        cursor.execute(
            f"SELECT {names} FROM {table} WHERE exchange_ts >= %s AND exchange_ts < %s",  # noqa: S608
            (hour, hour + timedelta(hours=1)),
        )
        while rows := cursor.fetchmany(CHUNK_ROWS):
            columns = [
                pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            written += len(rows)
    return written, path.stat().st_size
