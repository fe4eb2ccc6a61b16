"""Arrow → binary COPY into a temporary table → INSERT … ON CONFLICT DO NOTHING.

COPY alone aborts on the first duplicate; this way the unique key decides row by row at COPY's speed. The temporary
table lives as long as the connection and empties itself at every commit.
"""

from __future__ import annotations

import io
from typing import Any

import pgpq
import pyarrow as pa

from kalshi_platform.storage.tables import StreamTable

_PG_TYPES: dict[pa.DataType, str] = {
    pa.string(): "text",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
    pa.binary(): "bytea",
    pa.timestamp("us", tz="UTC"): "timestamptz",
    pa.list_(pa.int32()): "integer[]",
    pa.list_(pa.int64()): "bigint[]",
}


def insert_new(connection: Any, table: StreamTable, data: pa.Table, *, where: str = "") -> int:
    """Insert the rows of `data` whose key is not there yet; return how many were inserted. Does not commit."""
    if data.num_rows == 0:
        return 0
    stage = f"stage_{table.name}"
    names = ", ".join(table.columns)
    values = ", ".join(
        f"s.{name}::{table.casts[name]}" if name in table.casts else f"s.{name}" for name in table.columns
    )
    condition = f" WHERE {where}" if where else ""
    with connection.cursor() as cursor:
        cursor.execute(_stage_statement(stage, table))
        cursor.copy_expert(f"COPY {stage} ({names}) FROM STDIN WITH (FORMAT BINARY)", io.BytesIO(encode(table, data)))
        cursor.execute(
            f"INSERT INTO {table.name} AS t ({names}) SELECT {values} FROM {stage} s{condition}"  # noqa: S608 - our own names
            " ON CONFLICT DO NOTHING"
        )
        inserted = int(cursor.rowcount)
        # Two inserts of one table in one transaction must not see each other's staged rows.
        cursor.execute(f"TRUNCATE {stage}")
        return inserted


def encode(table: StreamTable, data: pa.Table) -> bytes:
    """Return `data` in PostgreSQL's binary COPY format."""
    encoder = pgpq.ArrowToPostgresBinaryEncoder(table.schema)
    buffer = bytearray(encoder.write_header())
    for batch in data.select(list(table.columns)).cast(table.schema).to_batches():
        buffer.extend(encoder.write_batch(batch))
    buffer.extend(encoder.finish())
    return bytes(buffer)


def _stage_statement(stage: str, table: StreamTable) -> str:
    columns = ", ".join(f"{field.name} {_PG_TYPES[field.type]}" for field in table.schema)
    return f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} ({columns}) ON COMMIT DELETE ROWS"
