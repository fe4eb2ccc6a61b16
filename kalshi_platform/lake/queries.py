"""The reads of production that exports stream. Pure: text in, text out."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from kalshi_platform.lake.layout import Partition
from kalshi_platform.lake.schema import Dataset
from kalshi_platform.storage.queries import load


def rows_query(partition: Partition, data: Dataset) -> str:
    """The rows of a partition, in the columns and the order of `data`."""
    if partition.table.layer == "raw":
        columns = ", ".join(_selected(name) for name in data.schema.names)
        order = ", ".join(_ordered(name, data) for name in data.order)
        return f"SELECT {columns} FROM {partition.table.name} WHERE {_within(partition, data)} ORDER BY {order}"  # noqa: S608 - our own names
    return _daily(partition, "")


def expected_query(partition: Partition, data: Dataset) -> str:
    """One row, `rows`: how many rows the partition must have."""
    if partition.table.layer == "raw":
        return f"SELECT count(*) AS rows FROM {partition.table.name} WHERE {_within(partition, data)}"  # noqa: S608 - our own names
    return _daily(partition, "_expected")


def unclosed_query(partition: Partition) -> str:
    """The hours of a partition that production has not closed: `hour`, `active`."""
    return load("lake")["unclosed_hours"].format(low=literal(partition.start), high=literal(partition.end))


def literal(moment: datetime) -> str:
    """An aware datetime as SQL."""
    return f"TIMESTAMPTZ '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00'"


def _daily(partition: Partition, suffix: str) -> str:
    name = "processed_trades" if partition.table.key == "processed/trades" else partition.table.name
    statement = load("lake")[name + suffix]
    return statement.format(low=literal(partition.start), high=literal(partition.end))


def _within(partition: Partition, data: Dataset) -> str:
    return f"{data.time_column} >= {literal(partition.start)} AND {data.time_column} < {literal(partition.end)}"


def _selected(name: str) -> str:
    return "content::text" if name == "content" else name


def _ordered(name: str, data: Dataset) -> str:
    return f'{name} COLLATE "C"' if pa.types.is_string(data.schema.field(name).type) else name
