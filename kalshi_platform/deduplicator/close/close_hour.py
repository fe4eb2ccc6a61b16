"""Closes an hour: all that gatherers hold of it is merged into production, with checkpoints, coverage and proofs.

Idempotent, and also the backfill. The hour is merged again by time, whatever the cursors say: what a restored or
renumbered gatherer has, comes too. What gatherers claim is read before their rows are merged, so that production holds
all that the claims speak of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.close import close_store
from kalshi_platform.deduplicator.close.close_record import HourClose, record_close
from kalshi_platform.deduplicator.close.hour_parts import (
    begin_part,
    delete_parts,
    finish_part,
    join_works,
    read_parts,
    reject_unequal,
)
from kalshi_platform.deduplicator.close.hour_summary import read_coverage_share, read_proofs_within
from kalshi_platform.deduplicator.close.hour_work import HourWork, HourWorker
from kalshi_platform.deduplicator.close.hours import MAY_GROW_FOR
from kalshi_platform.deduplicator.close.overlap import find_disagreements
from kalshi_platform.deduplicator.close.previous_close import (
    PreviousClose,
    read_previous_close,
    replace_dropped_tables,
)
from kalshi_platform.deduplicator.close.verify_hour import HourVerification
from kalshi_platform.deduplicator.merge import production
from kalshi_platform.deduplicator.merge.hour_files import DELTA_TABLE
from kalshi_platform.deduplicator.merge.source_identity import refuse_shared_databases
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.deduplicator.trades.reconcile_trades import reconcile_trades
from kalshi_platform.deduplicator.trades.rest_trades import TradeLister
from kalshi_platform.errors import HourDropped
from kalshi_platform.market.parts import WHOLE, MarketPart
from kalshi_platform.market.tables import CLOSE_TABLES, MERGED_TABLES
from kalshi_platform.market.times import HOUR, hour_of, us_from_datetime
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.alert_store import deliver_waiting
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

_log = event_logger(__name__)


def close_hour(
    settings: DeduplicatorSettings,
    hour: datetime,
    clock: Clock,
    bounds: PartitionBounds,
    final: bool = True,
    rest: TradeLister | None = None,
) -> HourClose:
    """Merge the hour again, make its checkpoints, record it as closed (unless it still runs, or `final` is False).

    `rest` lists the hour's trades, of which production gets those that no gatherer has; without it, or when the
    exchange does not answer, the hour is closed all the same and its trades are `not checked`.

    Raises ValueError when `hour` is not a whole hour, DatabaseUnavailable when production, or every gatherer, is away,
    SchemaMismatch when production is not migrated (a gatherer that is not is missed), ConfigurationError when two
    gatherers have one database, HourDropped when rows were dropped meanwhile. Hours older than
    hours.RETRY_MISSING_GATHERER_FOR need no gatherer: their trades still come from the exchange's listing.
    """
    with _opened(settings, hour, clock, bounds) as close:
        return close.run(final=final and hour + HOUR <= clock.now(), rest=rest)


def close_part(
    settings: DeduplicatorSettings,
    hour: datetime,
    part: MarketPart,
    clock: Clock,
    bounds: PartitionBounds,
    rest: TradeLister | None = None,
) -> PartClose:
    """Work on one part of an hour's markets; the last part of the division closes the hour.

    Raises as close_hour(), ValueError also for an hour that has not ended, and CloseSuperseded when the hour was closed
    by another close meanwhile.
    """
    if hour + HOUR > clock.now():
        raise ValueError(f"{hour:%Y-%m-%dT%H} has not ended")
    with _opened(settings, hour, clock, bounds) as close:
        return close.run_part(part, rest)


@contextmanager
def _opened(settings: DeduplicatorSettings, hour: datetime, clock: Clock, bounds: PartitionBounds) -> Iterator[_Close]:
    if hour.tzinfo is None or hour_of(hour) != hour:
        raise ValueError(f"{hour.isoformat()} is not a whole UTC hour")
    database = Database(settings.production_url, name="production")
    try:
        check(database, "production")
        refuse_shared_databases(settings.sources, clock)
        yield _Close(settings, hour, clock, bounds, database)
    finally:
        database.dispose()


@dataclass(frozen=True)
class PartClose:
    """What work on a part did. `remaining`: numbers of the parts that are not done; `closed`: once none is.

    `again`: those of them that were done, and lacked a gatherer that others read, or that another version kept.
    """

    part: MarketPart
    inserted: Mapping[str, int]
    missed: tuple[str, ...]
    remaining: tuple[int, ...] = ()
    again: tuple[int, ...] = ()
    closed: HourClose | None = None


class _Close:
    def __init__(
        self, settings: DeduplicatorSettings, hour: datetime, clock: Clock, bounds: PartitionBounds, database: Database
    ) -> None:
        self._settings = settings
        self._hour = hour
        self._clock = clock
        self._database = database
        self._keeper = PartitionKeeper(database, bounds, clock)

    def run(self, *, final: bool, rest: TradeLister | None) -> HourClose:
        close_no, closed_at = self._begin()
        with self._database.transaction() as transaction:
            previous = read_previous_close(transaction, self._hour)
        with ExitStack() as files:
            work = self._worker(close_no).work(WHOLE, previous, files)
            return self._finish(work, previous, close_no, closed_at, final=final, rest=rest)

    def run_part(self, part: MarketPart, rest: TradeLister | None) -> PartClose:
        with production.merge_transaction(self._database) as transaction:
            division = begin_part(transaction, self._hour, part)
            previous = read_previous_close(transaction, self._hour)
        with ExitStack() as files:
            work = self._worker(division.close_no).work(part, previous, files)
            with production.merge_transaction(self._database) as transaction:
                remaining = finish_part(transaction, division, work)
        done = PartClose(part, work.inserted, tuple(work.missed), remaining)
        if remaining:
            return done
        with production.merge_transaction(self._database) as transaction:
            works, unreadable = read_parts(transaction, division)
            again = reject_unequal(transaction, division, works, unreadable)
        if again or len(works) < part.total:
            return replace(done, remaining=again, again=again)
        joined = join_works(list(works.values()))
        closed = self._finish(joined, previous, division.close_no, division.begun_at, final=True, rest=rest)
        return replace(done, closed=closed)

    def _worker(self, close_no: int) -> HourWorker:
        return HourWorker(self._settings, self._hour, self._clock, self._database, self._keeper, close_no)

    def _finish(
        self,
        work: HourWork,
        previous: PreviousClose,
        close_no: int,
        closed_at: datetime,
        *,
        final: bool,
        rest: TradeLister | None,
    ) -> HourClose:
        """Write what was found, all in one transaction."""
        trades = None
        if final:
            # Rows that it inserts came with this close, which they do not reopen.
            trades = reconcile_trades(self._database, rest, self._hour, self._keeper, self._clock, merge_no=close_no)
        for table in ("book_checkpoints", *CLOSE_TABLES):
            self._keeper.ensure_hours(table, [us_from_datetime(self._hour)])
        with self._database.transaction() as transaction:
            counts = close_store.count_rows(transaction, self._hour)
        lost = previous.find_lost_tables(counts, work.not_shown)
        verified = None if previous.keeps_verification(lost) else work.verified
        expected = {table: max(count, work.rows[table]) for table, count in counts.items()}
        expected[DELTA_TABLE] = max(expected[DELTA_TABLE], work.held_deltas)
        with production.merge_transaction(self._database) as transaction:
            alarms = self._write(transaction, verified, work)
            # Counted last: from here to the commit these rows cannot be dropped.
            rows = close_store.count_rows(transaction, self._hour)
            self._check_vanished(counts if verified is None else expected, rows)
            replace_dropped_tables(transaction, self._hour, lost)
            verdicts = read_proofs_within(transaction, [self._hour])
            closed = HourClose(
                self._hour, rows, rows.pop("book_checkpoints"), work.gatherers_read, tuple(work.missed),
                dict(work.inserted), final, trades,
                read_coverage_share(transaction, self._hour), close_store.read_failed_markets(transaction, self._hour),
                verdicts.proved, verdicts.unproved, alarms, lost,
                {name: tuple(sorted(each)) for name, each in work.incomplete.items()},
            )  # fmt: skip
            if final:
                # Once quiet streams have had time to show more, the hour is not closed again for that.
                may_grow = self._clock.now() < self._hour + MAY_GROW_FOR
                may_grow = may_grow and verified is not None and work.may_grow
                record_close(transaction, closed, close_no, closed_at, previous, may_grow=may_grow)
                delete_parts(transaction, self._hour)
        for kind, subject, detail in alarms:
            _log.error(kind, hour=self._hour, subject=subject, detail=detail)
        if alarms:
            deliver_waiting(self._settings.alerts, self._database, self._clock)
        return closed

    def _begin(self) -> tuple[int, datetime]:
        """Return the number of this close, and the moment by production's clock.

        Merges with lower numbers are over, and any with a higher one reopens the hour.
        """
        with production.merge_transaction(self._database) as transaction:
            row = transaction.fetch_one(_SQL["begin_close"])
        assert row is not None  # noqa: S101 - a constant query has one row
        return int(row[0]), row[1]

    def _write(
        self, transaction: Transaction, verified: HourVerification | None, work: HourWork
    ) -> tuple[close_store.Alarm, ...]:
        """Write the results; without a verification claims, proofs and alarms stay. Return the alarms that stand then.

        What each gatherer showed, and which rows were refused, is written always: it decides what may be dropped.
        """
        statistics = work.statistics.filter(~pl.col("gatherer").is_in(tuple(work.missed)))
        refused = [
            ("rows_refused", f"{table}, {reason}", f"{count} rows went to dead_letters: {detail}")
            for (table, reason), (count, detail) in work.quarantined.items()
        ]
        if verified is None:
            close_store.replace_statistics(transaction, self._hour, statistics)
            alarms = [*close_store.read_alarms(transaction, self._hour), *refused]
        else:
            alarms = verified.write(transaction)
            close_store.record_streams(transaction, self._hour, work.held)
            standing = close_store.replace_statistics(transaction, self._hour, statistics)
            alarms.extend(find_disagreements(standing, self._settings.least_agreement))
            alarms.extend(refused)
        close_store.replace_alarms(transaction, self._hour, alarms)
        return close_store.read_alarms(transaction, self._hour) if verified is None else tuple(alarms)

    def _check_vanished(self, before: Mapping[str, int], now: Mapping[str, int]) -> None:
        fewer = [
            f"{table}: {before[table]:,} → {now[table]:,}" for table in MERGED_TABLES if now[table] < before[table]
        ]
        if fewer:
            raise HourDropped(
                f"rows of {self._hour:%Y-%m-%dT%H} were dropped from production while it was closed"
                f" ({', '.join(fewer)}); what was said of it before stays; close it again"
            )
