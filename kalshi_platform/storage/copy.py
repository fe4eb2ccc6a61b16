"""Inserts Arrow tables: binary COPY into a temporary table, then INSERT … ON CONFLICT DO NOTHING; or COPY alone.

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

from kalshi_platform.market.tables import Table
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform.storage.nul import strip_escaped_nul, strip_nul
from kalshi_platform.storage.queries import load

_CHUNK_BYTES = 1024 * 1024
"""For each chunk of a COPY the interpreter is let go and must be got back, which takes long while other threads run."""


def insert_new(connection: Any, table: Table, data: pa.Table, *, where: str = "", likely_new: bool = False) -> int:
    """Insert the rows of `data` whose key is not there yet; return how many were inserted. Does not commit.

    `where` is an optional WHERE clause over the staged row `s`. `likely_new` changes only what it costs.
    """
    if data.num_rows == 0:
        return 0
    copied = encode(table, data)
    if likely_new and not where and not _has_json(table) and _copy_straight(connection, table, copied):
        return int(data.num_rows)
    return _insert_staged(connection, table, copied, where)


def stage(connection: Any, table: Table, data: pa.Table) -> str:
    """Copy rows into a temporary table of the same columns, for a statement of the caller's; return its name.

    It is empty again after the transaction, of which it must be the only use.
    """
    name = f"stage_{table.name}"
    with connection.cursor() as cursor:
        cursor.execute(_stage_statement(name, table))
        _copy(cursor, name, table, encode(table, data))
    return name


def _copy_straight(connection: Any, table: Table, copied: bytes) -> bool:
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


def _insert_staged(connection: Any, table: Table, copied: bytes, where: str) -> int:
    stage = f"stage_{table.name}"
    names = ", ".join(table.names)
    values = ", ".join(f"s.{column.name}{'::jsonb' if column.type == 'jsonb' else ''}" for column in table.written)
    insert = load("storage")["insert_staged"].format(
        table=table.name, columns=names, values=values, stage=stage, condition=where
    )
    with connection.cursor() as cursor:
        cursor.execute(_stage_statement(stage, table))
        _copy(cursor, stage, table, copied)
        cursor.execute(insert)
        inserted = int(cursor.rowcount)
        cursor.execute(load("storage")["empty_stage"].format(stage=stage))
        return inserted


def _copy(cursor: Any, target: str, table: Table, copied: bytes) -> None:
    names = ", ".join(table.names)
    cursor.copy_expert(f"COPY {target} ({names}) FROM STDIN WITH (FORMAT BINARY)", io.BytesIO(copied), _CHUNK_BYTES)


def encode(table: Table, data: pa.Table) -> bytes:
    """Return `data` in PostgreSQL's binary COPY format."""
    encoder = pgpq.ArrowToPostgresBinaryEncoder(arrow_schema(table))
    header = encoder.write_header()
    batches = [encoder.write_batch(batch) for batch in _storable(table, data).to_batches()]
    return b"".join((header, *batches, encoder.finish()))


def _storable(table: Table, data: pa.Table) -> pa.Table:
    """The columns of `table` in its order and types, without what PostgreSQL cannot hold.

    JSON may carry U+0000 and PostgreSQL's text may not: one such character would make a whole batch fail for ever.
    It becomes U+FFFD.
    """
    schema = arrow_schema(table)
    data = data.select(schema.names).cast(schema)
    for index, (column, field) in enumerate(zip(table.written, schema, strict=True)):
        if not pa.types.is_string(field.type):
            continue
        is_json = column.type == "jsonb"
        needle = "\\u0000" if is_json else "\x00"
        if pc.any(pc.match_substring(data.column(index), needle)).as_py():
            clean = strip_escaped_nul if is_json else strip_nul
            values = [None if value is None else clean(value) for value in data.column(index).to_pylist()]
            data = data.set_column(index, field, pa.array(values, field.type))
    return data


def _stage_statement(stage: str, table: Table) -> str:
    # The encoder makes text of JSON; the statement that inserts it casts.
    columns = ", ".join(
        f"{column.name} {'text' if column.type == 'jsonb' else column.type}" for column in table.written
    )
    return f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} ({columns}) ON COMMIT DELETE ROWS"


def _has_json(table: Table) -> bool:
    return any(column.type == "jsonb" for column in table.written)
