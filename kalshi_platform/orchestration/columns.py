"""Column schemas for the asset pages, from the definitions of tables and of the lake's data sets."""

from __future__ import annotations

import dagster as dg

from kalshi_platform.lake.datasets import DATASETS
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
    types = {field.name: str(field.type) for field in data.schema}
    schema = dg.TableSchema([_column(column, data.identity, types[column.name]) for column in data.columns])
    return {"dagster/column_schema": schema, "dagster/table_name": f"lake.{key}"}


def _column(column: Column, key: tuple[str, ...], type_name: str | None = None) -> dg.TableColumn:
    constraints = dg.TableColumnConstraints(nullable=column.nullable, other=["key"] if column.name in key else [])
    return dg.TableColumn(column.name, type_name or column.type, column.comment, constraints)
