"""Arrow → binary COPY into a temporary table → INSERT … ON CONFLICT DO NOTHING; or straight into the table.

COPY alone aborts on the first duplicate; through the temporary table the unique key decides row by row at COPY's speed.
It lives as long as the connection and empties itself at every commit. Rows that are most likely new go straight into
their table, which costs the server half as much; if one of them is there already, they go the long way after all.
"""

from __future__ import annotations

import io
from typing import Any

import pgpq
import psycopg2.errors
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_platform.storage.tables import StreamTable
from kalshi_platform.storage.texts import json_without_nul, text_without_nul

_PG_TYPES: dict[pa.DataType, str] = {
    pa.string(): "text",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.bool_(): "boolean",
    pa.binary(): "bytea",
    pa.timestamp("us", tz="UTC"): "timestamptz",
    pa.list_(pa.int32()): "integer[]",
    pa.list_(pa.int64()): "bigint[]",
    pa.list_(pa.string()): "text[]",
}

_CHUNK_BYTES = 1024 * 1024
"""For each chunk of a COPY the interpreter is let go and must be got back, which takes long while other threads run."""


def insert_new(
    connection: Any, table: StreamTable, data: pa.Table, *, where: str = "", likely_new: bool = False
) -> int:
    """Insert the rows of `data` whose key is not there yet; return how many were inserted. Does not commit.

    `where` is an optional SQL condition over the staged row `s`. `likely_new` changes only what it costs.
    """
    if data.num_rows == 0:
        return 0
    copied = encode(table, data)
    if likely_new and not where and not table.casts and _copy_straight(connection, table, copied):
        return int(data.num_rows)
    return _insert_staged(connection, table, copied, where)


def stage(connection: Any, table: StreamTable, data: pa.Table) -> str:
    """Copy rows into a temporary table of the same columns, for a statement of the caller's; return its name.

    It is empty again after the transaction, of which it must be the only use.
    """
    name = f"stage_{table.name}"
    with connection.cursor() as cursor:
        cursor.execute(_stage_statement(name, table))
        _copy(cursor, name, table, encode(table, data))
    return name


def _copy_straight(connection: Any, table: StreamTable, copied: bytes) -> bool:
    """COPY into the table itself; return False, with nothing changed, when a row is there already."""
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT copy_straight")
        try:
            _copy(cursor, table.name, table, copied)
        except psycopg2.errors.UniqueViolation:
            cursor.execute("ROLLBACK TO SAVEPOINT copy_straight")
            return False
        cursor.execute("RELEASE SAVEPOINT copy_straight")
        return True


def _insert_staged(connection: Any, table: StreamTable, copied: bytes, where: str) -> int:
    stage = f"stage_{table.name}"
    names = ", ".join(table.columns)
    values = ", ".join(
        f"s.{name}::{table.casts[name]}" if name in table.casts else f"s.{name}" for name in table.columns
    )
    condition = f" WHERE {where}" if where else ""
    with connection.cursor() as cursor:
        cursor.execute(_stage_statement(stage, table))
        _copy(cursor, stage, table, copied)
        cursor.execute(
            f"INSERT INTO {table.name} AS t ({names}) SELECT {values} FROM {stage} s{condition}"  # noqa: S608 - our own names
            " ON CONFLICT DO NOTHING"
        )
        inserted = int(cursor.rowcount)
        # Two inserts of one table in one transaction must not see each other's staged rows.
        cursor.execute(f"TRUNCATE {stage}")
        return inserted


def _copy(cursor: Any, target: str, table: StreamTable, copied: bytes) -> None:
    names = ", ".join(table.columns)
    cursor.copy_expert(f"COPY {target} ({names}) FROM STDIN WITH (FORMAT BINARY)", io.BytesIO(copied), _CHUNK_BYTES)


def encode(table: StreamTable, data: pa.Table) -> bytes:
    """Return `data` in PostgreSQL's binary COPY format."""
    encoder = pgpq.ArrowToPostgresBinaryEncoder(table.schema)
    parts = [encoder.write_header()]
    for batch in _storable(table, data).to_batches():
        parts.append(encoder.write_batch(batch))
    parts.append(encoder.finish())
    return b"".join(parts)


def _storable(table: StreamTable, data: pa.Table) -> pa.Table:
    """The columns of `table` in its order and types, without what PostgreSQL cannot hold.

    JSON may carry U+0000 and PostgreSQL's text may not: one such character would make a whole batch fail for ever.
    It becomes U+FFFD.
    """
    data = data.select(list(table.columns)).cast(table.schema)
    for index, field in enumerate(table.schema):
        if not pa.types.is_string(field.type):
            continue
        is_json = table.casts.get(field.name) == "jsonb"
        needle = "\\u0000" if is_json else "\x00"
        if pc.any(pc.match_substring(data.column(index), needle)).as_py():
            clean = json_without_nul if is_json else text_without_nul
            values = [None if value is None else clean(value) for value in data.column(index).to_pylist()]
            data = data.set_column(index, field, pa.array(values, field.type))
    return data


def _stage_statement(stage: str, table: StreamTable) -> str:
    columns = ", ".join(f"{field.name} {_PG_TYPES[field.type]}" for field in table.schema)
    return f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} ({columns}) ON COMMIT DELETE ROWS"
