"""One pass of the live merge: every gatherer past its cursor → production.

Gatherers are read in parallel, united and thinned, and inserted in one production transaction together with the
cursors: whatever kills the process, rows and cursors agree. A gatherer that is away is skipped, and that is recorded.
Where production refuses a pass, each gatherer's rows go in part by part, what it still refuses is put aside, and only
then its cursor moves.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import chain

import polars as pl
import pyarrow as pa

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.merge import alarms, cursor, hour_activity, parts, production
from kalshi_platform.deduplicator.merge import quarantine as aside
from kalshi_platform.deduplicator.merge.cursor import NewRows, Position
from kalshi_platform.deduplicator.merge.deduplicate import thin
from kalshi_platform.deduplicator.merge.parallel_read import Readers
from kalshi_platform.deduplicator.merge.source import check_source
from kalshi_platform.deduplicator.merge.source_identity import Observeres
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.market.tables import MERGED_TABLES
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableMerge:
    """Rows of one table in a pass: read from all gatherers, left after thinning, and new in production."""

    read: int = 0
    unique: int = 0
    inserted: int = 0


@dataclass(frozen=True)
class SourceMerge:
    """One gatherer in a pass. `error`: why it was skipped. `lag_s`: from its newest commit to the end of the pass."""

    name: str
    cursor: int
    rows: int = 0
    behind: bool = False
    restarted: bool = False
    lag_s: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class MergeReport:
    """What one pass did. `put_aside`: rows that went to production's dead letters. `alarms`: those of the last day."""

    started_at: datetime
    finished_at: datetime
    sources: tuple[SourceMerge, ...]
    tables: Mapping[str, TableMerge] = field(default_factory=dict)
    put_aside: int = 0
    alarms: tuple[alarms.MergeAlarm, ...] = ()

    @property
    def rows_read(self) -> int:
        return sum(table.read for table in self.tables.values())

    @property
    def rows_inserted(self) -> int:
        return sum(table.inserted for table in self.tables.values())

    @property
    def behind(self) -> bool:
        """Whether some gatherer that answers has more."""
        return any(source.behind for source in self.sources)

    @property
    def missed(self) -> tuple[str, ...]:
        """Gatherers that could not be read."""
        return tuple(source.name for source in self.sources if source.error is not None)


class Merger:
    """Runs passes; keeps connections, known partitions and unanswered questions between them."""

    def __init__(self, settings: DeduplicatorSettings, clock: Clock, bounds: PartitionBounds) -> None:
        self.settings = settings
        self.production = Database(settings.production_url, name="production")
        self._clock = clock
        self._bounds = bounds
        self._keeper = PartitionKeeper(self.production, bounds, clock)
        self._readers: Readers[NewRows] = Readers(clock)
        self._failing: dict[str, str] = {}
        self._checked: set[str] = set()
        self._observeres = Observeres()
        self._read_at: dict[str, float] = {}
        self._production_checked = False

    def check_production(self) -> None:
        """Compare production's tables and mode with what this version writes, once.

        Raises SchemaMismatch, naming the remedy, and DatabaseUnavailable.
        """
        if not self._production_checked:
            check(self.production, "production")
            self._production_checked = True

    def merge_new(self) -> MergeReport:
        """Run one pass. Raises DatabaseUnavailable when production is away, SchemaMismatch when it is not migrated;
        nothing is written then. A gatherer of either kind is missed."""
        started_at = self._clock.now()
        self.check_production()
        with self.production.transaction() as transaction:
            cursors = cursor.load(transaction)
            raised = alarms.recent(transaction)
        answers, errors = self._readers.ask(
            {
                source.name: partial(self._read_new, source, cursors.get(source.name, Position()))
                for source in self.settings.sources
            },
            self.settings.source_timeout_s,
        )
        failed = {name: reason_of(error) for name, error in errors.items()}
        self._tell(failed)
        answers, strange = self._believed(answers)
        tables = unite({name: answer.tables for name, answer in answers.items()})
        moved = [
            answer for answer in answers.values()
            if answer.restarted or answer.source in self._failing or _moves(answer, cursors.get(answer.source))
        ]  # fmt: skip
        inserted: Counter[str] = Counter()
        put_aside = 0
        if moved or failed:
            try:
                put_aside = self._merge_whole(tables, moved, strange, inserted)
            except parts.REFUSALS as error:
                if not parts.is_splittable(error):
                    raise
                _log.warning("production refused a pass, which is tried part by part: %s", error)
                # Partitions may have gone: begin with a fresh memory of what exists.
                self._keeper = PartitionKeeper(self.production, self._bounds, self._clock)
                inserted.clear()
                put_aside = sum(self._merge_parts(answer, strange.get(answer.source, []), inserted) for answer in moved)
            if failed:
                with self.production.transaction() as transaction:
                    for name, reason in failed.items():
                        cursor.record_error(transaction, name, reason)
        if put_aside:
            _log.error("%d rows cannot be in production and were put aside in its dead_letters", put_aside)
        self._failing = failed
        return MergeReport(
            started_at=started_at,
            finished_at=self._clock.now(),
            sources=tuple(
                _source_merge(source.name, cursors, answers, failed, self._lag_s(answers.get(source.name)))
                for source in self.settings.sources
            ),
            tables={
                name: TableMerge(read, rows.height, inserted[name])
                for name, (rows, read) in tables.items()
            },
            put_aside=put_aside,
            alarms=raised,
        )  # fmt: skip

    def _merge_whole(
        self,
        tables: Mapping[str, tuple[pl.DataFrame, int]],
        moved: Sequence[NewRows],
        strange: Mapping[str, list[aside.Aside]],
        inserted: Counter[str],
    ) -> int:
        """Rows of all gatherers and their cursors in one transaction; return how many rows were put aside."""
        arrivals = production.Arrivals({name: rows for name, (rows, _) in tables.items()}, self._keeper)
        parts.refuse_many_hours(arrivals)
        asides = [*chain.from_iterable(strange.values()), *arrivals.asides]
        with production.merging(self.production) as transaction:
            new = production.insert(transaction, arrivals)
            hour_activity.record_activity(transaction, new)
            aside.put(transaction, asides)
            for answer in moved:
                _advance(transaction, answer)
        inserted.update({table: sum(hours.values()) for table, hours in new.items()})
        return sum(each.rows.height for each in asides)

    def _merge_parts(self, answer: NewRows, strange: Sequence[aside.Aside], inserted: Counter[str]) -> int:
        """Rows of one gatherer, part by part, and its cursor after them; return how many rows were put aside.

        Whatever breaks off meanwhile, the next pass reads the same again, and nothing is merged twice.
        """
        put_aside = sum(each.rows.height for each in strange)
        for table, (rows, _) in unite({answer.source: answer.tables}).items():
            carried = parts.carry(self.production, table, rows, self._keeper)
            inserted[table] += carried.rows
            put_aside += sum(each.rows.height for each in carried.asides)
        with production.merging(self.production) as transaction:
            aside.put(transaction, strange)
            _advance(transaction, answer)
        return put_aside

    def _believed(self, answers: Mapping[str, NewRows]) -> tuple[dict[str, NewRows], dict[str, list[aside.Aside]]]:
        """The answers without rows of times that cannot be, and these, by gatherer."""
        kept: dict[str, NewRows] = {}
        strange: dict[str, list[aside.Aside]] = {}
        for name, answer in answers.items():
            tables = dict(answer.tables)
            for table, rows in answer.tables.items():
                tables[table], found = aside.believed(table, name, rows, self._bounds)
                strange.setdefault(name, []).extend(found)
            kept[name] = replace(answer, tables=tables)
        return kept, strange

    def dispose(self) -> None:
        """Close the connections to production."""
        self.production.dispose()

    def _read_new(self, source: GathererSource, after: Position) -> NewRows:
        if source.name not in self._checked:
            check_source(source)
            self._observeres.admit(source)
            self._checked.add(source.name)
        try:
            answer = cursor.read_new(source, after, self.settings.rows_of_each)
        except KalshiPlatformError:
            self._checked.discard(source.name)  # it may come back as another database
            raise
        self._read_at[source.name] = self._clock.monotonic()
        return answer

    def _lag_s(self, answer: NewRows | None) -> float | None:
        """Two clocks, each for its own part: the gatherer's database's up to the reading, ours from there."""
        if answer is None or answer.newest_age_s is None:
            return None
        return answer.newest_age_s + self._clock.monotonic() - self._read_at[answer.source]

    def _tell(self, failed: Mapping[str, str]) -> None:
        for name, reason in failed.items():
            if self._failing.get(name) != reason:
                _log.warning("%s cannot be read and is skipped: %s", name, reason)
        for name in self._failing:
            if name not in failed:
                _log.info("%s can be read again", name)


def merge_new(settings: DeduplicatorSettings, clock: Clock, bounds: PartitionBounds | None = None) -> MergeReport:
    """Run one pass over all gatherers past their cursors; `behind` in the report says whether to run another."""
    merger = Merger(settings, clock, bounds or PartitionBounds())
    try:
        return merger.merge_new()
    finally:
        merger.dispose()


def unite(by_gatherer: Mapping[str, Mapping[str, pa.Table]]) -> dict[str, tuple[pl.DataFrame, int]]:
    """Thin the rows of all gatherers, table by table: (rows for production, how many were read)."""
    united = {}
    for table in MERGED_TABLES:
        parts = {name: tables[table] for name, tables in by_gatherer.items() if table in tables}
        read = sum(part.num_rows for part in parts.values())
        if read:
            united[table] = (thin(table, parts), read)
    return united


def _moves(answer: NewRows, position: Position | None) -> bool:
    return position is None or answer.read.last is not None


def _advance(transaction: Transaction, answer: NewRows) -> None:
    if answer.restarted:
        alarms.raise_alarm(transaction, *_restart_alarm(answer))
    cursor.advance(transaction, answer)


def _restart_alarm(answer: NewRows) -> tuple[str, str, str]:
    detail = (
        f"batch {answer.cursor.batch_no}, up to which it was merged, is not in its database, which was restored, failed"
        " over to an older state, or made anew; it is read from its beginning, and nothing is merged twice"
    )
    return alarms.GATHERER_RESTARTED, answer.source, detail


def _source_merge(
    name: str,
    cursors: Mapping[str, Position],
    answers: Mapping[str, NewRows],
    failed: Mapping[str, str],
    lag_s: float | None,
) -> SourceMerge:
    if name not in answers:
        return SourceMerge(name, cursors.get(name, Position()).batch_no, error=failed[name])
    answer = answers[name]
    return SourceMerge(name, answer.read.until, answer.rows, answer.read.behind, answer.restarted, lag_s)


def reason_of(error: Exception) -> str:
    """What to record about a gatherer that cannot be read; errors that nobody foresaw are raised."""
    if isinstance(error, KalshiPlatformError | TimeoutError):
        return str(error)
    if isinstance(error, pa.ArrowException | OverflowError | ValueError):
        # A value of this gatherer that nobody can read does not hold up the others.
        return f"its rows cannot be read: {type(error).__name__}: {error}"
    raise error
