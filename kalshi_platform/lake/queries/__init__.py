"""The statements that exports and the stale check run on production. Pure: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.lake.datasets.dataset import TRADE_ID
from kalshi_platform.lake.layout import Partition
from kalshi_platform.market.tables import CATALOG_TABLES, DATABASES, Column
from kalshi_platform.storage.literals import literal
from kalshi_platform.storage.queries import load

# As the exchange writes them: what is read from the bytes is the same text.
_IS_UUID = "trade_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'"
_HOURS = load(Path(__file__).with_name("hours.sql"))
_TABLES = load(Path(__file__).with_name("tables.sql"))


def rows_query(partition: Partition) -> str:
    """The rows of a partition in the columns of its data set: in its order, or in any order from a raw table."""
    data = partition.dataset
    if data.statement:
        return _of_dataset(partition, data.statement)
    return _of_source(partition, "raw_rows", columns=_columns_of(data))


def rows_between_query(data: Dataset, low: datetime, high: datetime, tickers: Sequence[str] | None) -> str:
    """Rows of a raw data set within [low, high), in its columns and order; of all markets or of those named."""
    return _TABLES["raw_rows_between"].format(
        columns=_columns_of(data),
        source=data.source,
        time=DATABASES["production"][data.source].time_column,
        low=literal(low),
        high=literal(high),
        tickers="NULL::text[]" if tickers is None else literal(list(tickers)),
        order=", ".join(_in_order(column) for name in data.order for column in data.columns if column.name == name),
    )


def fixed_rows_query(partition: Partition) -> str:
    """The rows of a raw partition in any order, in the columns of its data set; texts as their 64-bit hashes."""
    columns = (f"hashtextextended({each.name}, 0)" if each.type == "text" else each.name
               for each in partition.dataset.columns)  # fmt: skip
    return _of_source(partition, "raw_rows", columns=", ".join(columns))


def texts_query(partition: Partition, column: str, moments: Sequence[datetime]) -> str:
    """The texts of a raw table's column at some times: `text`, `hash`."""
    return _of_source(partition, "texts_at", column=column, moments=literal(list(moments)))


def rows_per_ticker_query(partition: Partition) -> str:
    """Of a raw data set, one row per market: `ticker`, `rows`, `hash` (of the ticker)."""
    return _of_source(partition, "raw_rows_by_ticker")


def expected_query(partition: Partition) -> str:
    """Of a data set that a statement makes, one row: `rows`, how many rows the partition must have."""
    return _of_dataset(partition, f"{partition.dataset.statement}_expected")


def source_query(partition: Partition) -> str:
    """One row: `rows`, how many rows of production's table the partition is made from."""
    if partition.dataset.source in CATALOG_TABLES:
        return expected_query(partition)
    return _of_source(partition, "source_row_count")


def closes_query(low: datetime, high: datetime) -> str:
    """The hours of [low, high): `hour`, `active`, `closed_at`, `close_no`, `close_id`, `reopened`."""
    return _HOURS["closes"].format(low=literal(low), high=literal(high))


def recently_closed_query(since: datetime) -> str:
    """Closed hours since a moment, and those closed (again) since: `hour`."""
    return _HOURS["recently_closed"].format(since=literal(since))


def closed_rows_query(partition: Partition) -> str:
    """The closed hours of a partition: `hour`, `rows` of production's table that the close counted, `is_gone`."""
    return _HOURS["closed_rows"].format(
        table=literal(partition.dataset.source), low=literal(partition.start), high=literal(partition.end)
    )


def coverage_query(partition: Partition) -> str:
    """The covered share of an hour: `share`, null where no market was recorded."""
    return _HOURS["coverage"].format(hour=literal(partition.start))


def _columns_of(data: Dataset) -> str:
    return ", ".join(map(_expression, data.columns))


def _expression(column: Column) -> str:
    """How a column of a raw data set is read from production's table."""
    if column.type == "jsonb":
        return f"{column.name}::text"
    if column == TRADE_ID[0]:
        return f"CASE WHEN {_IS_UUID} THEN uuid_send(trade_id::uuid) END AS trade_id"
    if column == TRADE_ID[1]:
        return f"CASE WHEN {_IS_UUID} THEN NULL ELSE trade_id END AS trade_id_text"
    return column.name


def _in_order(column: Column) -> str:
    """A column of what is read, as the server is to sort it: texts by their bytes."""
    if column == TRADE_ID[1]:
        return 'trade_id COLLATE "C"'  # the table's column, as everywhere in an expression
    return f'{column.name} COLLATE "C"' if column.type == "text" else column.name


def _of_dataset(partition: Partition, name: str) -> str:
    statements = load(Path(__file__).with_name(f"{partition.dataset.statement}.sql"))
    return statements[name].format(low=literal(partition.start), high=literal(partition.end))


def _of_source(partition: Partition, name: str, **values: str) -> str:
    data = partition.dataset
    return _TABLES[name].format(
        source=data.source,
        time=DATABASES["production"][data.source].time_column,
        low=literal(partition.start),
        high=literal(partition.end),
        **values,
    )
