"""Applies retention: old partitions of gatherers and of production that the lake verifiably holds are dropped.

Safe to repeat, and to kill: each drop is a transaction of its own, and nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from itertools import groupby

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable, LakeUnavailable, PartitionBusy, SchemaMismatch
from kalshi_platform.lake.retention.drop import Dropper
from kalshi_platform.lake.retention.gate import LakeGate
from kalshi_platform.lake.retention.gatherers import GathererRetention, read_cursor
from kalshi_platform.lake.retention.ledger import Clearer, clear_gatherer, clear_production, oldest_left
from kalshi_platform.lake.retention.production import BULK, HISTORY, PRODUCTION, drop_production
from kalshi_platform.lake.retention.report import Cleared, Outcome, RetentionReport
from kalshi_platform.lake.retention.settings import GathererDatabase, RetentionSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.progress import report_progress
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.pool import Database

_log = event_logger(__name__)


def apply_retention(
    settings: RetentionSettings, clock: Clock, dry_run: bool = False, only: Collection[str] = ()
) -> RetentionReport:
    """Drop what is old and in the lake; with `dry_run` say what would go, and change nothing.

    `only`: `production` and names of gatherers, all without any. What cannot go is refused with the reason, and a
    gatherer that gives no answer is reported as unreachable. So is a database during whose turn the lake gives none:
    what went before that is reported, and the next database has its turn. Raises PartitionBusy while another run is at
    work, DatabaseUnavailable (of production), SchemaMismatch, ConfigurationError.
    """
    if not settings.enabled:
        return RetentionReport(dry_run)
    production = Database(settings.production_url, name="production")
    try:
        check(production, "production")
        with production.advisory_lock("retention") as lock:
            if lock is None:
                raise PartitionBusy("another run of retention is at work; try again when it is done")
            return _Run(settings, clock, production, dry_run=dry_run).run(only)
    finally:
        production.dispose()


class _Run:
    def __init__(self, settings: RetentionSettings, clock: Clock, production: Database, *, dry_run: bool) -> None:
        self._settings = settings
        self._production = production
        self._dry_run = dry_run
        self._now = clock.now()
        self._store: ObjectStore = open_store(settings.lake)
        verified_for = timedelta(days=settings.verified_for_days)
        self._gate = LakeGate(self._store, production, self._now, verified_for, remembers=not dry_run)
        self._dropper = Dropper(settings, clock, production, self._gate)
        self._outcomes: list[Outcome] = []
        self._cleared: list[Cleared] = []
        self._unreachable: dict[str, str] = {}

    def run(self, only: Collection[str]) -> RetentionReport:
        # Gatherers first: what is read back for them is not read again for production.
        for gatherer in self._settings.gatherers:
            if not only or gatherer.name in only:
                self._apply_to_gatherer(gatherer)
        if not only or PRODUCTION in only:
            try:
                self._apply_to_production()
            except LakeUnavailable as error:
                self._unreachable[PRODUCTION] = str(error)
                _log.warning("retention_cut_short", database=PRODUCTION, error=error)
        report = RetentionReport(self._dry_run, tuple(self._outcomes), tuple(self._cleared), self._unreachable)
        _log_tables(report)
        return report

    def _apply_to_gatherer(self, gatherer: GathererDatabase) -> None:
        before = self._before(self._settings.gatherer_days)
        if before is None:
            return
        timeseries = Database(gatherer.url, name=f"{gatherer.name} timeseries")
        outcomes: list[Outcome] = []
        try:
            check(timeseries, "timeseries")
            cursor = read_cursor(self._production, timeseries, gatherer.name)
            retention = GathererRetention(
                gatherer.name, timeseries, self._production, self._store, self._gate, self._dropper
            )
            for outcome in retention.drop(before, cursor, dry_run=self._dry_run):
                outcomes.append(outcome)  # what was dropped before a failure is reported
                report_progress(f"{gatherer.name} partitions", len(outcomes))
            clearer = Clearer(gatherer.name, timeseries, dry_run=self._dry_run)
            records = self._before(self._settings.records_days)
            self._cleared += clear_gatherer(clearer, oldest_left(outcomes, before), records, cursor)
            if records is not None and gatherer.catalog_url:
                self._clear_catalog(gatherer, records)
        except (DatabaseUnavailable, LakeUnavailable, SchemaMismatch) as error:
            self._unreachable[gatherer.name] = str(error)
            _log.warning("retention_cut_short", database=gatherer.name, error=error)
        finally:
            timeseries.dispose()
            self._outcomes += outcomes

    def _clear_catalog(self, gatherer: GathererDatabase, before: datetime) -> None:
        catalog = Database(gatherer.catalog_url, name=f"{gatherer.name} catalog")
        try:
            check(catalog, "catalog")
            clearer = Clearer(gatherer.name, catalog, dry_run=self._dry_run)
            self._cleared.append(clearer.clear("catalog_syncs", "old_syncs", before=before))
        finally:
            catalog.dispose()

    def _apply_to_production(self) -> None:
        before = self._before(self._settings.production_days)
        if before is None:
            return
        bulk = self._drop_production(BULK, before)
        before = oldest_left(bulk, before)
        history = self._before(self._settings.history_days)
        if history is not None:
            # What is said of deltas, and what books begin with, stays as long as these.
            self._drop_production(HISTORY, min(history, before))
        records = self._before(self._settings.records_days)
        clearer = Clearer(PRODUCTION, self._production, dry_run=self._dry_run)
        self._cleared += clear_production(clearer, before, None if records is None else min(records, before))

    def _drop_production(self, tables: tuple[str, ...], before: datetime) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            for outcome in drop_production(
                self._production, self._store, self._gate, self._dropper, tables, before, dry_run=self._dry_run
            ):
                outcomes.append(outcome)  # what was dropped before a failure is reported
                report_progress(f"{PRODUCTION} {', '.join(tables)} partitions", len(outcomes))
        finally:
            self._outcomes += outcomes
        return outcomes

    def _before(self, days: float) -> datetime | None:
        return self._now - timedelta(days=days) if days else None


def _log_tables(report: RetentionReport) -> None:
    """Log one line for each table of which partitions went, and one for each of which some stay."""
    for (database, table), some in groupby(report.refused, key=lambda each: (each.database, each.table)):
        refused = list(some)
        _log.warning(
            "partitions_not_dropped", database=database, table=table, partitions=len(refused),
            first=refused[0].low, reason=refused[0].refused,
        )  # fmt: skip
    if report.dry_run:
        return
    for (database, table), some in groupby(report.gone, key=lambda each: (each.database, each.table)):
        gone = list(some)
        _log.info(
            "partitions_dropped", database=database, table=table, partitions=len(gone),
            rows=sum(each.rows for each in gone), size_bytes=sum(each.bytes for each in gone),
        )  # fmt: skip
