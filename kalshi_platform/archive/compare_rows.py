"""Compares rows that were decoded again with those of a gatherer's tables, and writes what may be written.

The comparison is the server's: rows are staged, joined by the key of their table, and counted there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from kalshi_platform.errors import DatabaseUnavailable, StatementRejected
from kalshi_platform.gatherer.ingest.columns import TABLE_OF, rows_by_type, tables_of, times_us, with_batch_no
from kalshi_platform.gatherer.ingest.quarantine import split_by_hours
from kalshi_platform.market.records import Record
from kalshi_platform.market.tables import GATHERER_TABLES, Column, Table
from kalshi_platform.market.times import HOUR, datetime_from_us
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage import queries
from kalshi_platform.storage.partitions import PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.quarantine import may_pass_in_parts, write_in_parts
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("compare_rows.sql"))
_log = event_logger(__name__)
LETTERS = "dead_letters"
_REFUSALS = (StatementRejected, DatabaseUnavailable, pa.ArrowException, OverflowError)
_ORIGIN = ("stream_id", "seq", "received_at")
# Letters have no key in their definition; this index tells them apart.
_KEYS: Mapping[str, tuple[str, ...]] = {LETTERS: ("received_at", "fingerprint")}


@dataclass
class RebuiltTable:
    """Counts the rows that the frames gave for one table, beside those that it had.

    `filled` rows lacked a value that is given now, `changed` ones had another one, `inserted` ones were not there;
    both are counted by column too. `refused`: rows that the database does not take. `unexplained`: rows of the table
    that were received in the hour and that no frame gives. Of a run that writes nothing they say what it would write.
    """

    rows: int = 0
    equal: int = 0
    filled: int = 0
    changed: int = 0
    inserted: int = 0
    refused: int = 0
    unexplained: int = 0
    filled_columns: dict[str, int] = field(default_factory=dict)
    changed_columns: dict[str, int] = field(default_factory=dict)


class RowComparer:
    """Compares rows part by part; `tables` counts what came of it. For one thread."""

    def __init__(self, database: Database, keeper: PartitionKeeper, *, overwrite: bool, dry_run: bool) -> None:
        """Write missing rows and values, with `overwrite` also values that differ, with `dry_run` nothing."""
        self.tables: dict[str, RebuiltTable] = {name: RebuiltTable() for name in TABLE_OF.values()}
        self._database = database
        self._keeper = keeper
        self._overwrite = overwrite
        self._dry_run = dry_run
        # By table: rows that their own frame gave, and the first and last time of all that were compared.
        self._own: Counter[str] = Counter()
        self._spans: dict[str, tuple[datetime, datetime]] = {}

    def compare(self, records: Sequence[Record]) -> None:
        """Compare rows. Raises DatabaseUnavailable; a row that the database refuses is counted and left out."""
        for rows in rows_by_type(records).values():
            for part in split_by_hours(rows):
                if part:
                    write_in_parts(part, self._compare_part, self._refuse, _is_about_rows)

    def _refuse(self, rows: Sequence[Record], error: Exception) -> None:
        """Count a row that the database refuses; the gatherer made a dead letter of it."""
        self.tables[TABLE_OF[type(rows[0])]].refused += 1
        _log.info("row_refused", table=TABLE_OF[type(rows[0])], error=error)

    def _compare_part(self, part: Sequence[Record]) -> None:
        """Compare rows of one table, in a transaction."""
        ((name, data),) = tables_of(part).items()
        table, moments = _Statements(GATHERER_TABLES[name]), times_us(name, data)
        low, high = datetime_from_us(moments[0]), datetime_from_us(moments[-1])
        span = {"low": low, "high": high}
        data = with_batch_no(name, _distinct(data, table.key), 0)
        if not self._dry_run:
            self._keeper.ensure_hours(name, moments)
        with self._database.transaction() as transaction:
            stage = transaction.stage(table.table, data)
            found = _one(transaction, table.compare(stage), span)
            rows, present, _, lacking, different, *_ = found
            if not self._dry_run:
                if lacking or different:
                    transaction.execute(table.change(stage, overwrite=self._overwrite), span)
                if rows > present:
                    self._insert_missing(transaction, table, stage, data, span)
        self._count(table, found)
        before = self._spans.get(name, (low, high))
        self._spans[name] = min(low, before[0]), max(high, before[1])

    def _count(self, table: _Statements, found: tuple[int, ...]) -> None:
        rows, present, own, lacking, different, *by_column = found
        counted = self.tables[table.table.name]
        self._own[table.table.name] += own
        counted.rows += rows
        counted.equal += present - lacking - different
        counted.filled += lacking
        counted.changed += different
        counted.inserted += rows - present
        for number, column in enumerate(table.compared):
            _add(counted.filled_columns, column.name, by_column[2 * number])
            _add(counted.changed_columns, column.name, by_column[2 * number + 1])

    def _insert_missing(
        self, transaction: Transaction, table: _Statements, stage: str, data: pa.Table, span: Mapping[str, datetime]
    ) -> None:
        """Insert rows under a batch number of their own, so that the merge reads them."""
        sql = queries.load("gatherer")
        (batch_no,) = _one(transaction, sql["next_batch"], {})
        inserted = transaction.execute(table.insert(stage), {"batch_no": batch_no})
        size = data.nbytes * inserted // max(1, data.num_rows)
        transaction.execute_values(
            sql["batches"], [(batch_no, table.table.name, inserted, span["low"], span["high"], size)]
        )

    def count_unexplained(self, since: datetime, until: datetime) -> None:
        """Count the rows of each table that were received in [since, until) and that no frame gave."""
        for name, counted in self.tables.items():
            first, last = self._spans.get(name, (since, until))
            low, high = min(since - HOUR, first), max(until + HOUR, last)
            statement = _SQL["count_received"].format(table=name, time=GATHERER_TABLES[name].time_column)
            with self._database.transaction() as transaction:
                (found,) = _one(transaction, statement, {"since": since, "until": until, "low": low, "high": high})
            inserted = 0 if self._dry_run else counted.inserted
            counted.unexplained = max(0, found - self._own[name] - inserted)


class _Statements:
    """Makes the statements that compare staged rows of one table with those that it has."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.key = _KEYS.get(table.name, table.key)
        self.compared = tuple(
            column for column in table.written if column.name not in (*self.key, *_ORIGIN, "batch_no")
        )
        self._common = {
            "table": table.name,
            "time": table.time_column,
            "key": " AND ".join(f"t.{name} = s.{name}" for name in self.key),
        }

    def compare(self, stage: str) -> str:
        """Return the statement that counts."""
        lacking, different = _any(map(_is_lacking, self.compared)), _any(map(_is_different, self.compared))
        by_column = ", ".join(
            f"count(t.{self.table.time_column}) FILTER (WHERE {condition})"
            for column in self.compared
            for condition in (_is_lacking(column), _is_different(column))
        )
        own = " AND ".join(f"t.{name} = s.{name}" for name in _ORIGIN)
        return _SQL["compare_rows"].format(
            **self._common, stage=stage, is_own=own, is_lacking=lacking, is_different=different, by_column=by_column
        )

    def change(self, stage: str, *, overwrite: bool) -> str:
        """Return the statement that gives rows the values that they lack, with `overwrite` all staged values."""
        values = ", ".join(
            f"{column.name} = {_staged(column) if overwrite else f'coalesce(t.{column.name}, {_staged(column)})'}"
            for column in self.compared
        )
        wanted = [*map(_is_lacking, self.compared), *(map(_is_different, self.compared) if overwrite else ())]
        return _SQL["change_rows"].format(**self._common, stage=stage, values=values, is_wanted=_any(wanted))

    def insert(self, stage: str) -> str:
        """Return the statement that inserts what is missing."""
        columns = [column for column in self.table.written if column.name != "batch_no"]
        return _SQL["insert_missing"].format(
            table=self.table.name,
            stage=stage,
            columns=", ".join(column.name for column in columns),
            staged=", ".join(map(_staged, columns)),
        )


def _is_about_rows(error: Exception) -> bool:
    return isinstance(error, _REFUSALS) and may_pass_in_parts(error)


def _staged(column: Column) -> str:
    return f"s.{column.name}::jsonb" if column.type == "jsonb" else f"s.{column.name}"


def _is_lacking(column: Column) -> str:
    return f"(t.{column.name} IS NULL AND s.{column.name} IS NOT NULL)"


def _is_different(column: Column) -> str:
    return f"(t.{column.name} IS NOT NULL AND t.{column.name} IS DISTINCT FROM {_staged(column)})"


def _any(conditions: Iterable[str]) -> str:
    return " OR ".join(conditions)


def _distinct(data: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return the rows without those whose key an earlier one has, as a commit leaves them out."""
    numbered = data.append_column("_row", pa.array(range(data.num_rows), pa.int64()))
    firsts = numbered.group_by(list(key), use_threads=False).aggregate([("_row", "min")]).column("_row_min")
    return data if len(firsts) == data.num_rows else data.take(pa.array(sorted(firsts.to_pylist()), pa.int64()))


def _one(transaction: Transaction, statement: str, params: Mapping[str, Any]) -> tuple[Any, ...]:
    row = transaction.fetch_one(statement, params)
    assert row is not None  # noqa: S101 - an aggregate, or the counter's only row
    return row


def _add(counts: dict[str, int], name: str, count: int) -> None:
    if count:
        counts[name] = counts.get(name, 0) + count
