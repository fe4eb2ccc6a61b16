"""Column schemas for the asset pages, from the definitions of tables and of the lake's data sets."""

from __future__ import annotations

import dagster as dg

from kalshi_platform.lake.schema import DATASETS
from kalshi_platform.market.tables import DATABASES, Column, Database


def column_metadata(kind: Database, table: str) -> dict[str, object]:
    """Metadata for an asset's definition: what the Columns tab of its page shows, and the table's name."""
    definition = DATABASES[kind][table]
    schema = dg.TableSchema([_column(column, definition.key) for column in definition.columns])
    return {"dagster/column_schema": schema, "dagster/table_name": f"{kind}.{table}"}


def table_comment(kind: Database, table: str) -> str:
    """What one row of the table is."""
    return DATABASES[kind][table].meaning


def lake_metadata(key: str) -> dict[str, object]:
    """The same for a data set of the lake; `key` is `<layer>/<name>`."""
    data = DATASETS[key]
    columns = []
    for field in data.schema:
        notes = {name.decode(): text.decode() for name, text in (field.metadata or {}).items()}
        description = "; ".join(text for text in (notes.get("unit"), notes.get("description")) if text)
        constraints = dg.TableColumnConstraints(
            nullable=field.nullable, other=["key"] if field.name in data.identity else []
        )
        columns.append(dg.TableColumn(field.name, str(field.type), description or None, constraints))
    return {"dagster/column_schema": dg.TableSchema(columns), "dagster/table_name": f"lake.{key}"}


def _column(column: Column, key: tuple[str, ...]) -> dg.TableColumn:
    constraints = dg.TableColumnConstraints(nullable=column.nullable, other=["key"] if column.name in key else [])
    return dg.TableColumn(column.name, column.type, column.comment, constraints)
