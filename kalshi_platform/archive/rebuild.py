"""Decodes the frames of an hour again and compares the rows with a gatherer's tables; what is missing is written.

The way to gain a new column for the past, or to mend what a parser made of frames. Rows are compared by the key of
their table. Nothing is ever deleted, and no claim of the ledger is extended: rows that a claim excluded stay outside.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from kalshi_platform.archive.frame_sources import HourSources, fetch_hour
from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.ingest.columns import TABLE_OF, tables_of, times_us, with_batch_no
from kalshi_platform.gatherer.ingest.dead_letter_limit import DeadLetterLimit
from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform.gatherer.ingest.exchange_times import ExchangeTimes
from kalshi_platform.gatherer.ingest.quarantine import split_by_hours, split_out_of_range
from kalshi_platform.gatherer.journal.block_format import Block
from kalshi_platform.gatherer.journal.reader import JournalReader
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.records import Record
from kalshi_platform.market.tables import GATHERER_TABLES, Column, Table
from kalshi_platform.market.times import HOUR, datetime_from_us, us_from_datetime
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.progress import report_progress
from kalshi_platform.storage import queries
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("rebuild.sql"))
_log = event_logger(__name__)
# What one transaction compares and writes: the gatherer's commits wait while a part is written.
_ROWS_AT_ONCE = 50_000
_ORIGIN = ("stream_id", "seq", "received_at")
_LETTERS = "dead_letters"
# Letters have no key in their definition; this index tells them apart.
_KEYS: Mapping[str, tuple[str, ...]] = {_LETTERS: ("received_at", "fingerprint")}
_MICROSECOND = timedelta(microseconds=1)


@dataclass
class RebuiltTable:
    """Counts the rows that the frames gave for one table, beside those that it had.

    `filled` rows lacked a value that is given now, `changed` ones had another one, `inserted` ones were not there;
    `columns` counts both of the first by column. `unexplained`: rows of the table that were received in the hour and
    that no frame gives. Of a run that writes nothing they say what it would write.
    """

    rows: int = 0
    equal: int = 0
    filled: int = 0
    changed: int = 0
    inserted: int = 0
    unexplained: int = 0
    filled_columns: dict[str, int] = field(default_factory=dict)
    changed_columns: dict[str, int] = field(default_factory=dict)


@dataclass
class Rebuilt:
    """Reports what became of an hour. `from_lake`, `from_journal`: segments by where they came from.

    `damages`: places of the segments that gave no block.
    """

    gatherer: str
    hour: datetime
    from_lake: int
    from_journal: int
    frames: int = 0
    damages: int = 0
    tables: dict[str, RebuiltTable] = field(default_factory=dict)

    overwritten: bool = False

    @property
    def differs(self) -> bool:
        """Return whether something is left that the run may not change."""
        return any(map(self.is_differing, self.tables))

    def is_differing(self, table: str) -> bool:
        """Return whether rows of the table differ from what the frames give, and stay.

        A dead letter that no frame gives any more is no such row: its frame may give another one now.
        """
        counted = self.tables[table]
        return bool((counted.changed and not self.overwritten) or (counted.unexplained and table != _LETTERS))


def rebuild_tables(
    lake: Lake | None,
    gatherer: GathererSettings,
    hour: datetime,
    bounds: PartitionBounds,
    clock: Clock,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Rebuilt:
    """Decode the frames that a gatherer received in the hour from `hour` on again, and bring its tables up to them.

    Missing rows and missing values are written; values that are there and differ only with `overwrite`. `dry_run`
    writes nothing. Raises LakeUnavailable, LakeArchived, LakeCorrupt, DatabaseUnavailable, SchemaMismatch.
    """
    database = Database(gatherer.timeseries_url, name=f"{gatherer.name} timeseries", pool_size=2)
    store = None if lake is None else open_store(lake)
    try:
        check(database, "timeseries")
        with _staging(store) as folder:
            sources = fetch_hour(store, gatherer, hour, folder)
            done = Rebuilt(gatherer.name, hour, sources.from_lake, sources.from_journal, overwritten=overwrite)
            comparer = _Comparer(gatherer, database, PartitionKeeper(database, bounds, clock), done, overwrite, dry_run)
            times = ExchangeTimes(bounds)
            for records in _decode_hour(gatherer, sources, done):
                comparer.compare(records, times)
                report_progress("frames decoded", done.frames)
            comparer.count_unexplained()
    finally:
        database.dispose()
    _log.info("hour_rebuilt", gatherer=gatherer.name, hour=hour.isoformat(), frames=done.frames, differs=done.differs)
    return done


def _decode_hour(gatherer: GathererSettings, sources: HourSources, done: Rebuilt) -> Iterator[list[Record]]:
    """Yield the rows of the frames received in the hour, in the order of recording, some at a time."""
    low_ns = us_from_datetime(done.hour) * 1_000
    high_ns = low_ns + (HOUR // _MICROSECOND) * 1_000
    rows: list[Record] = []
    for paths in sources.journals:
        decoder = Decoder(gatherer.market_filter.shard, gatherer.dead_letters_per_minute)
        with closing(JournalReader(paths)) as reader:
            while (item := reader.next()) is not None:
                decoded = decoder.decode(item)
                rows += [
                    record
                    for record in decoded.records
                    if type(record) in TABLE_OF and low_ns <= record.received_at_ns < high_ns  # type: ignore[union-attr]
                ]
                if isinstance(item, Block):
                    done.frames += sum(low_ns <= each < high_ns for each in item.batch.received_at_ns)
                else:
                    done.damages += not item.is_torn
                if len(rows) >= _ROWS_AT_ONCE:
                    yield rows
                    rows = []
    if rows:
        yield rows


class _Comparer:
    """Compares rows with the tables, part by part, and writes what may be written."""

    def __init__(
        self,
        gatherer: GathererSettings,
        database: Database,
        keeper: PartitionKeeper,
        done: Rebuilt,
        overwrite: bool,
        dry_run: bool,
    ) -> None:
        self._database = database
        self._keeper = keeper
        self._done = done
        self._overwrite = overwrite
        self._dry_run = dry_run
        self._letters = DeadLetterLimit(0, gatherer.dead_letters_per_minute)
        # By table: rows that their own frame gave, and the first and last time of all that were compared.
        self._own: Counter[str] = Counter()
        self._spans: dict[str, tuple[datetime, datetime]] = {}

    def compare(self, records: Sequence[Record], times: ExchangeTimes) -> None:
        """Compare rows, those with impossible times as the dead letters that they became."""
        low_us, high_us = self._keeper.bounds_us()
        kept, _ = split_out_of_range(
            records, lambda row: low_us <= row.exchange_ts_us < high_us and times.accepts(row), self._letters
        )
        for part in split_by_hours(kept):
            for name, data in tables_of(part).items():
                self._compare_table(_Statements(GATHERER_TABLES[name]), data)

    def _compare_table(self, table: _Statements, data: pa.Table) -> None:
        name = table.table.name
        counted = self._done.tables.setdefault(name, RebuiltTable())
        moments = times_us(name, data)
        low, high = datetime_from_us(moments[0]), datetime_from_us(moments[-1])
        before = self._spans.get(name, (low, high))
        self._spans[name] = min(low, before[0]), max(high, before[1])
        data = with_batch_no(name, _distinct(data, table.key), 0)
        if not self._dry_run:
            self._keeper.ensure_hours(name, moments)
        with self._database.transaction() as transaction:
            stage = transaction.stage(table.table, data)
            span = {"low": low, "high": high}
            rows, present, own, lacking, different, *by_column = _one(transaction, table.compare(stage), span)
            counted.rows += rows
            self._own[name] += own
            counted.equal += present - lacking - different
            counted.filled += lacking
            counted.changed += different
            counted.inserted += rows - present
            for number, column in enumerate(table.compared):
                _add(counted.filled_columns, column.name, by_column[2 * number])
                _add(counted.changed_columns, column.name, by_column[2 * number + 1])
            if self._dry_run:
                return
            if lacking or different:
                transaction.execute(table.change(stage, overwrite=self._overwrite), span)
            if rows > present:
                self._insert_missing(transaction, table, stage, data, span)

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

    def count_unexplained(self) -> None:
        """Count the rows of each table that were received in the hour and that no frame gave."""
        since, until = self._done.hour, self._done.hour + HOUR
        for name in TABLE_OF.values():
            counted = self._done.tables.setdefault(name, RebuiltTable())
            first, last = self._spans.get(name, (since, until))
            low, high = min(since - HOUR, first), max(until + HOUR, last)
            table = GATHERER_TABLES[name]
            statement = _SQL["count_received"].format(table=name, time=table.time_column)
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


@contextmanager
def _staging(store: ObjectStore | None) -> Iterator[Path]:
    """Give a folder for segments: beside the lake where that is a folder, so that they are links."""
    if store is not None:
        with store.staging() as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="kalshi-rebuild-") as name:
            yield Path(name)
