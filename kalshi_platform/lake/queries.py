"""The reads of production that exports stream. Pure: text in, text out."""

from __future__ import annotations

from datetime import datetime

from kalshi_platform.lake.layout import Partition
from kalshi_platform.lake.schema import Dataset
from kalshi_platform.storage.literals import literal
from kalshi_platform.storage.queries import load


def rows_query(partition: Partition, data: Dataset) -> str:
    """The rows of a partition in the columns of `data`: in its order, or in any order from a raw table."""
    if partition.table.layer == "raw":
        columns = ", ".join("content::text" if name == "content" else name for name in data.schema.names)
        return load("lake")["raw_rows"].format(columns=columns, **_span(partition, data))
    return _daily(partition, "")


def tickers_query(partition: Partition, data: Dataset) -> str:
    """Of a raw table, one row per market: `ticker`, `rows`."""
    return load("lake")["raw_rows_by_ticker"].format(**_span(partition, data))


def expected_query(partition: Partition) -> str:
    """Of a daily data set, one row: `rows`, how many rows the partition must have."""
    return _daily(partition, "_expected")


def source_query(partition: Partition) -> str:
    """Of a daily data set, one row: `rows`, how many rows of `source_table` it is made from."""
    return load("lake")["processed_trades_expected"].format(low=literal(partition.start), high=literal(partition.end))


def source_table(partition: Partition) -> str:
    """The table of production that a partition is made from; all that is derived so far comes from trades."""
    return partition.table.name if partition.table.layer == "raw" else "trades"


def closes_query(low: datetime, high: datetime) -> str:
    """The hours of [low, high): `hour`, `active`, `closed_at`, `close_id`, `reopened`."""
    return load("lake")["closes"].format(low=literal(low), high=literal(high))


def recently_closed_query(since: datetime) -> str:
    """Closed hours since a moment, and those closed (again) since: `hour`."""
    return load("lake")["recently_closed"].format(since=literal(since))


def closed_rows_query(partition: Partition) -> str:
    """The closed hours of a partition: `hour`, `rows` of `source_table` that the close counted, `is_gone`."""
    return load("lake")["closed_rows"].format(
        table=literal(source_table(partition)), low=literal(partition.start), high=literal(partition.end)
    )


def coverage_query(partition: Partition) -> str:
    """The covered share of an hour: `share`, null where no market was recorded."""
    return load("lake")["coverage"].format(hour=literal(partition.start))


def _daily(partition: Partition, suffix: str) -> str:
    name = "processed_trades" if partition.table.key == "processed/trades" else partition.table.name
    statement = load("lake")[name + suffix]
    return statement.format(low=literal(partition.start), high=literal(partition.end))


def _span(partition: Partition, data: Dataset) -> dict[str, str]:
    return {
        "source": partition.table.name,
        "time": data.time_column,
        "low": literal(partition.start),
        "high": literal(partition.end),
    }
