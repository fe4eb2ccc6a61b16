"""Runs one pass of the live merge: rows of every gatherer past its cursor → production.

Gatherers are read in parallel, their rows deduplicated, and inserted in one production transaction together with the
cursors: whatever kills the process, rows and cursors agree. A gatherer that is away is skipped, and that is recorded.
Where production refuses a pass, each gatherer's rows go in part by part, rows that it refuses alone are quarantined,
and only then the gatherer's cursor moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import chain

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.merge import alarms, cursor, hour_activity, production
from kalshi_platform.deduplicator.merge.cursor import Position, ReadResult
from kalshi_platform.deduplicator.merge.dead_letters import QuarantinedRows, split_implausible_times, write_dead_letters
from kalshi_platform.deduplicator.merge.deduplicate import UniqueRows, deduplicate_tables
from kalshi_platform.deduplicator.merge.insert_parts import check_hour_count, insert_in_parts, is_splittable
from kalshi_platform.deduplicator.merge.parallel_read import ParallelReader, describe_read_error
from kalshi_platform.deduplicator.merge.source import check_source
from kalshi_platform.deduplicator.merge.source_identity import SourceIdentities
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction

_log = event_logger(__name__)


@dataclass(frozen=True)
class TableMerge:
    """Rows of one table in a pass: read from all gatherers, left after deduplication, and new in production."""

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
    """What one pass did. `quarantined`: rows that went to dead letters. `alarms`: those of the last day."""

    started_at: datetime
    finished_at: datetime
    sources: tuple[SourceMerge, ...]
    tables: Mapping[str, TableMerge] = field(default_factory=dict)
    quarantined: int = 0
    alarms: tuple[alarms.MergeAlarm, ...] = ()

    @property
    def rows_read(self) -> int:
        """Rows of all tables that were read from gatherers."""
        return sum(table.read for table in self.tables.values())

    @property
    def rows_inserted(self) -> int:
        """Rows of all tables that were new to production."""
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
    """Runs passes; keeps connections, known partitions and unfinished reads between them."""

    def __init__(self, settings: DeduplicatorSettings, clock: Clock, bounds: PartitionBounds) -> None:
        self.settings = settings
        self.production = Database(settings.production_url, name="production")
        self._clock = clock
        self._bounds = bounds
        self._keeper = PartitionKeeper(self.production, bounds, clock)
        self._reader: ParallelReader[ReadResult] = ParallelReader(clock)
        self._failing: dict[str, str] = {}
        self._checked: set[str] = set()
        self._identities = SourceIdentities()
        self._read_at_s: dict[str, float] = {}
        self._production_checked = False

    def check_production(self) -> None:
        """Compare production's tables and mode with what this version writes, once.

        Raises SchemaMismatch, naming the remedy, and DatabaseUnavailable.
        """
        if not self._production_checked:
            check(self.production, "production")
            self._production_checked = True

    def merge_new(self) -> MergeReport:
        """Run one pass.

        Raises DatabaseUnavailable when production is away, SchemaMismatch when it is not migrated; nothing is written
        then. A gatherer that is either is missed.
        """
        started_at = self._clock.now()
        self.check_production()
        with self.production.transaction() as transaction:
            positions = cursor.load_positions(transaction)
            raised = alarms.read_recent(transaction)
        results, errors = self._reader.gather(
            {
                source.name: partial(self._read_new, source, positions.get(source.name, Position()))
                for source in self.settings.sources
            },
            self.settings.source_timeout_s,
        )
        failed = {name: describe_read_error(error) for name, error in errors.items()}
        self._log_changes(failed)
        results, implausible = self._split_implausible(results)
        tables = deduplicate_tables({name: result.tables for name, result in results.items()})
        moved = [
            result for result in results.values()
            if result.restarted or result.source in self._failing or _has_progress(result, positions.get(result.source))
        ]  # fmt: skip
        inserted: Counter[str] = Counter()
        quarantined = 0
        if moved or failed:
            try:
                quarantined = self._merge_whole(tables, moved, implausible, inserted)
            except Exception as error:
                if not is_splittable(error):
                    raise
                _log.warning("pass_refused", error=error, consequence="its rows are inserted part by part")
                # Partitions may have gone: begin with a fresh memory of what exists.
                self._keeper = PartitionKeeper(self.production, self._bounds, self._clock)
                inserted.clear()
                quarantined = sum(
                    self._merge_parts(result, implausible.get(result.source, []), inserted) for result in moved
                )
            if failed:
                with self.production.transaction() as transaction:
                    for name, reason in failed.items():
                        cursor.record_error(transaction, name, reason)
        if quarantined:
            _log.error("rows_quarantined", rows=quarantined, remedy="see dead_letters of production")
        self._failing = failed
        return MergeReport(
            started_at=started_at,
            finished_at=self._clock.now(),
            sources=tuple(
                _source_merge(source.name, positions, results, failed, self._lag_s(results.get(source.name)))
                for source in self.settings.sources
            ),
            tables={
                name: TableMerge(unique.rows_read, unique.rows.height, inserted[name])
                for name, unique in tables.items()
            },
            quarantined=quarantined,
            alarms=raised,
        )  # fmt: skip

    def _merge_whole(
        self,
        tables: Mapping[str, UniqueRows],
        moved: Sequence[ReadResult],
        implausible: Mapping[str, list[QuarantinedRows]],
        inserted: Counter[str],
    ) -> int:
        """Insert rows of all gatherers and move their cursors in one transaction; return how many were quarantined."""
        by_hour = production.RowsByHour({name: unique.rows for name, unique in tables.items()}, self._keeper)
        check_hour_count(by_hour)
        quarantined = [*chain.from_iterable(implausible.values()), *by_hour.quarantined]
        with production.merge_transaction(self.production) as transaction:
            new = production.insert_new_rows(transaction, by_hour)
            hour_activity.record_activity(transaction, new)
            write_dead_letters(transaction, quarantined)
            for result in moved:
                _advance_cursor(transaction, result)
        inserted.update({table: sum(hours.values()) for table, hours in new.items()})
        return sum(each.rows.height for each in quarantined)

    def _merge_parts(self, result: ReadResult, implausible: Sequence[QuarantinedRows], inserted: Counter[str]) -> int:
        """Insert rows of one gatherer part by part, then move its cursor; return how many were quarantined.

        If it breaks off meanwhile, the next pass reads the same again, and nothing is merged twice.
        """
        quarantined = sum(each.rows.height for each in implausible)
        for table, unique in deduplicate_tables({result.source: result.tables}).items():
            made = insert_in_parts(self.production, table, unique.rows, self._keeper)
            inserted[table] += made.rows
            quarantined += made.rows_quarantined
        with production.merge_transaction(self.production) as transaction:
            write_dead_letters(transaction, implausible)
            _advance_cursor(transaction, result)
        return quarantined

    def _split_implausible(
        self, results: Mapping[str, ReadResult]
    ) -> tuple[dict[str, ReadResult], dict[str, list[QuarantinedRows]]]:
        """Return the results without rows of implausible times, and those rows, by gatherer."""
        kept: dict[str, ReadResult] = {}
        implausible: dict[str, list[QuarantinedRows]] = {}
        for name, result in results.items():
            tables = dict(result.tables)
            for table, rows in result.tables.items():
                tables[table], found = split_implausible_times(table, name, rows, self._bounds)
                implausible.setdefault(name, []).extend(found)
            kept[name] = replace(result, tables=tables)
        return kept, implausible

    def dispose(self) -> None:
        """Close the connections to production."""
        self.production.dispose()

    def _read_new(self, source: GathererSource, after: Position) -> ReadResult:
        if source.name not in self._checked:
            check_source(source)
            self._identities.register(source)
            self._checked.add(source.name)
        try:
            result = cursor.read_new_rows(source, after, self.settings.rows_of_each)
        except KalshiPlatformError:
            self._checked.discard(source.name)  # it may come back as another database
            raise
        self._read_at_s[source.name] = self._clock.monotonic()
        return result

    def _lag_s(self, result: ReadResult | None) -> float | None:
        """Two clocks, each for its own part: the gatherer's database's up to the reading, ours from there."""
        if result is None or result.newest_age_s is None:
            return None
        return result.newest_age_s + self._clock.monotonic() - self._read_at_s[result.source]

    def _log_changes(self, failed: Mapping[str, str]) -> None:
        for name, reason in failed.items():
            if self._failing.get(name) != reason:
                _log.warning("gatherer_skipped", gatherer=name, error=reason)
        for name in self._failing:
            if name not in failed:
                _log.info("gatherer_readable_again", gatherer=name)


def merge_new(settings: DeduplicatorSettings, clock: Clock, bounds: PartitionBounds | None = None) -> MergeReport:
    """Run one pass over all gatherers past their cursors; `behind` in the report says whether to run another."""
    merger = Merger(settings, clock, bounds or PartitionBounds())
    try:
        return merger.merge_new()
    finally:
        merger.dispose()


def _has_progress(result: ReadResult, position: Position | None) -> bool:
    return position is None or result.plan.last is not None


def _advance_cursor(transaction: Transaction, result: ReadResult) -> None:
    if result.restarted:
        detail = (
            f"batch {result.cursor.batch_no}, up to which it was merged, is not in its database, which was restored,"
            " failed over to an older state, or made anew; it is read from its beginning, and nothing is merged twice"
        )
        alarms.raise_alarm(transaction, alarms.GATHERER_RESTARTED, result.source, detail)
    cursor.advance(transaction, result)


def _source_merge(
    name: str,
    positions: Mapping[str, Position],
    results: Mapping[str, ReadResult],
    failed: Mapping[str, str],
    lag_s: float | None,
) -> SourceMerge:
    if name not in results:
        return SourceMerge(name, positions.get(name, Position()).batch_no, error=failed[name])
    result = results[name]
    return SourceMerge(name, result.plan.until, result.rows, result.plan.behind, result.restarted, lag_s)
