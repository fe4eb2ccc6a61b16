"""Records which hours of production got rows, and from which merge: table `hour_activity`.

Merges and closes are numbered in the order of their commits. An hour with activity of a higher number than its close
is to be closed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from kalshi_platform.storage.pool import Transaction


def next_merge_no(transaction: Transaction) -> int:
    """Take the next merge number: higher than those of all merges and closes that were committed before."""
    row = transaction.fetch_one("SELECT next_merge_no()")
    assert row is not None  # noqa: S101 - a function's value is one row
    return int(row[0])


def record_activity(
    transaction: Transaction, inserted: Mapping[str, Mapping[datetime, int]], merge_no: int | None = None
) -> None:
    """Record which hours got rows, and by which merge: one that got rows after its close is to be closed again.

    `merge_no`: the number of the close that brought them and that they do not reopen; None for a number of their own.
    """
    lines = [(hour, table, count) for table, hours in inserted.items() for hour, count in hours.items()]
    if not lines:
        return
    number = next_merge_no(transaction) if merge_no is None else merge_no
    transaction.execute_values(
        "INSERT INTO hour_activity AS t (hour, table_name, rows_inserted, last_merged_at, last_merge_no)"
        " SELECT v.hour, v.table_name, v.rows, clock_timestamp(), v.number"
        " FROM (VALUES %s) AS v (hour, table_name, rows, number)"
        " ON CONFLICT (hour, table_name) DO UPDATE SET rows_inserted = t.rows_inserted + excluded.rows_inserted,"
        " last_merged_at = excluded.last_merged_at,"
        " last_merge_no = greatest(t.last_merge_no, excluded.last_merge_no)",
        [(*line, number) for line in lines],
        "(%s::timestamptz, %s::text, %s::bigint, %s::bigint)",
    )


def reopen_hours(transaction: Transaction, hours: Iterable[datetime]) -> None:
    """Mark closed hours to be closed again, because something that they rest on has changed."""
    transaction.execute(
        "INSERT INTO hour_activity AS t (hour, table_name, rows_inserted, last_merged_at, last_merge_no)"
        " SELECT c.hour, 'book_checkpoints', 0, clock_timestamp(), n.number"
        " FROM (SELECT next_merge_no() AS number) n CROSS JOIN hour_closes c WHERE c.hour = ANY (%s)"
        " ON CONFLICT (hour, table_name) DO UPDATE SET last_merged_at = excluded.last_merged_at,"
        " last_merge_no = excluded.last_merge_no",
        (sorted(set(hours)),),
    )
