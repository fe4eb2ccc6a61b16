"""The definition of every table, compared with the catalogue of a migrated database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kalshi_platform.market.tables import DATABASES, Column, Table
from kalshi_platform.storage.migrate import FOLDERS, DatabaseKind
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.storage import MakeDatabase

_TABLES = """
SELECT c.relname, c.relkind::text, obj_description(c.oid, 'pg_class'),
       coalesce((SELECT array_agg(a.attname::text ORDER BY k.place)
                 FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                 WHERE i.indrelid = c.oid AND i.indisprimary), '{}')
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
"""
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, a.attidentity <> '',
       pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum)
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(quote_ident(%s)) AND a.attnum > 0 AND NOT a.attisdropped
"""


def stored_columns(database: Database, table: str) -> dict[str, tuple[Any, ...]]:
    """Type, nullable, identity, default, comment by column."""
    with database.transaction() as transaction:
        return {str(name): rest for name, *rest in transaction.fetch_all(_COLUMNS, (table,))}  # type: ignore[misc]


def comment_statements(database: Database, tables: Mapping[str, Table]) -> list[str]:
    """The SQL that gives a database the comments of the definition, where they differ."""
    with database.transaction() as transaction:
        stored = {row[0]: row[2] for row in transaction.fetch_all(_TABLES)}
    found = []
    for name, table in tables.items():
        if stored.get(name) != table.meaning:
            found.append(f"COMMENT ON {'VIEW' if table.is_view else 'TABLE'} {name} IS {_text(table.meaning)};")
        columns = stored_columns(database, name)
        found += [
            f"COMMENT ON COLUMN {name}.{column.name} IS {_text(column.comment)};"
            for column in table.columns
            if column.name in columns and columns[column.name][-1] != column.comment
        ]
    return found


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _type(column: Column) -> str:
    return "timestamp with time zone" if column.type == "timestamptz" else column.type


@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_every_table_of_a_migrated_database_is_defined_with_its_key(
    make_database: MakeDatabase, kind: DatabaseKind
) -> None:
    database, defined = make_database(kind), DATABASES[kind]
    with database.transaction() as transaction:
        stored = {name: (relkind == "v", tuple(key)) for name, relkind, _, key in transaction.fetch_all(_TABLES)}
        partitioned: dict[str, str] = (
            {}
            if kind == "catalog"
            else dict(transaction.fetch_all("SELECT table_name, time_column FROM series_tables"))
        )
    assert stored == {name: (table.is_view, table.key) for name, table in defined.items()}
    assert partitioned == {name: table.time_column for name, table in defined.items() if table.time_column}


@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_columns_of_a_migrated_database_are_those_of_the_definition(
    make_database: MakeDatabase, kind: DatabaseKind
) -> None:
    database = make_database(kind)
    for name, table in DATABASES[kind].items():
        stored = {column: [*values[:2], values[3]] for column, values in stored_columns(database, name).items()}
        defined = {column.name: [_type(column), column.nullable, column.default] for column in table.columns}
        assert stored == defined, name
        identities = {column for column, values in stored_columns(database, name).items() if values[2]}
        assert identities <= {column.name for column in table.columns if column.generated}, name


@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_comments_of_a_migrated_database_are_those_of_the_definition(
    make_database: MakeDatabase, kind: DatabaseKind
) -> None:
    statements = comment_statements(make_database(kind), DATABASES[kind])
    assert not statements, "a new file in sql/ has to say:\n" + "\n".join(statements)
