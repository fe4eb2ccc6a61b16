"""Records which hours of production got rows, and from which merge: table `hour_activity`.

Merges and closes are numbered in the order of their commits. An hour with activity of a higher number than its close
is to be closed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from kalshi_platform.storage.pool import Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))


def next_merge_no(transaction: Transaction) -> int:
    """Take the next merge number: higher than those of all merges and closes that were committed before."""
    row = transaction.fetch_one(_SQL["take_merge_no"])
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
        _SQL["record_activity"],
        [(*line, number) for line in lines],
        "(%s::timestamptz, %s::text, %s::bigint, %s::bigint)",
    )


def reopen_hours(transaction: Transaction, hours: Iterable[datetime]) -> None:
    """Mark closed hours to be closed again, because something that they rest on has changed."""
    transaction.execute(_SQL["reopen_hours"], (sorted(set(hours)),))
