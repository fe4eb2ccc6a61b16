"""Keeps catalog and registry up to date: a full sync at the start, then incremental ones, and polls in between.

Markets come first, because they must be recorded; series and events describe them. Each of the three is retried by
itself, so that none waits for another. While the catalog database is unavailable the registry is filled from REST
alone, so that capture can begin; the database gets everything with the next sync.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kalshi_platform.backoff import exponential
from kalshi_platform.catalog.store import CatalogStore, SyncReport
from kalshi_platform.catalog.sync import sync_events, sync_markets, sync_series
from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable, KalshiPlatformError
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.gatherer.markets.catalog_poller import CatalogPoller
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.reports import CatalogSynced
from kalshi_platform.gatherer.status.status import CatalogStatus
from kalshi_platform.market.catalog import MarketInfo
from kalshi_platform.monitoring.event_log import event_logger

_LIVING = ("open", "unopened", "paused")
_LISTINGS = ("markets", "series", "events")
_RETRY_S = 5.0
_ALARMING_SHARE = 0.01
"""Share of a listing: when more of its objects cannot be read, the exchange has changed its format."""
_VISIBLE_AFTER_S = 5.0
"""REST shows a market some moments after its announcement, so a market announced just before the start may be missing.

It is listed when the lists are read again after this time.
"""
_log = event_logger(__name__)


@dataclass
class _Job:
    """Describes a job that is repeated every `every_s`; `due` is monotonic."""

    name: str
    every_s: float
    act: Callable[[], bool]
    """Returns whether it succeeded as a whole; else it is due again sooner."""
    due: float
    failures: int = 0


class CatalogSyncLoop:
    """Syncs from one thread: `load` once, then `run`."""

    def __init__(
        self,
        settings: GathererSettings,
        rest: RestClient,
        store: CatalogStore,
        registry: Registry,
        clock: Clock,
        on_change: Callable[[], None],
        on_synced: Callable[[CatalogSynced], None],
    ) -> None:
        """Set up the loop; `on_change` is called after each change of the registry."""
        self.last_synced: dict[str, str] = {}
        """When series, events and markets were last synced by this process (ISO), for the heartbeat."""
        self.failing: dict[str, str] = {}
        """Reasons of the listings that failed or lack something, by name; empty when all are whole."""
        self.left_out = 0
        """Objects that the last syncs of the three listings could not read."""
        self.database_error: str | None = None
        self._left_out: dict[str, int] = {}
        self._sync_requested = threading.Event()
        self._settings = settings
        self._rest = rest
        self._store = store
        self._registry = registry
        self._clock = clock
        self._on_change = on_change
        self._on_synced = on_synced
        chosen = settings.market_filter
        self._filters_by_parents = bool(chosen.series or chosen.categories)
        self._poller = CatalogPoller(store, registry, parents=self._filters_by_parents)
        # A full sync is pending until one was whole, whatever the tables already contain.
        self._full_sync_pending = set(_LISTINGS)

    def status(self) -> CatalogStatus:
        """Return the status of the syncs and of the REST answers."""
        faults = self._rest.faults
        return CatalogStatus(
            last_synced=dict(self.last_synced),
            database_error=self.database_error,
            failing=dict(self.failing),
            left_out=self.left_out,
            refused=self._store.refused,
            unfit_fields=sum(faults.unexpected_fields.values()),
            mended_values=faults.repaired,
            cut_listings=faults.cut_listings,
        )

    def load(self, stop: threading.Event) -> None:
        """Bring catalog and registry up to date, retrying until there are markets to follow.

        `run` retries the syncs that are still pending then. Raises only permanent errors.
        """
        attempt = 0
        # The markets of a former run are followed while the exchange's lists are read.
        self._refresh_from_tables()
        while not stop.is_set():
            try:
                answered = {
                    what
                    for what in _LISTINGS
                    if what in self._full_sync_pending and not stop.is_set() and self._try_sync(what)
                }
                self._poller.refresh()
            except DatabaseUnavailable as error:
                self.database_error = str(error)
                _log.warning(
                    "catalog_unavailable",
                    gatherer=self._settings.name,
                    error=error,
                    consequence="markets are read from REST",
                )
                if self._load_without_database():
                    return
            else:
                self._on_change()
                if "markets" in answered or self._registry.counts():
                    return
            attempt += 1
            self._clock.wait(stop, exponential(0.5, _RETRY_S, attempt))

    def request_sync(self) -> None:
        """Sync changed markets now, because announcements may have been missed. From any thread."""
        self._sync_requested.set()

    def run(self, stop: threading.Event) -> None:
        """Sync and poll by the clock until `stop`."""
        settings, now = self._settings, self._clock.monotonic()
        soon_s = min(_VISIBLE_AFTER_S, settings.reconcile_interval_s)
        parents_s = settings.events_interval_s
        jobs = [
            _Job("markets", settings.reconcile_interval_s, self._reconcile, now + soon_s),
            _Job("series", parents_s, lambda: self._sync_parents("series"), now + parents_s),
            _Job("events", parents_s, lambda: self._sync_parents("events"), now + parents_s),
            _Job("follow", settings.catalog_follow_interval_s, self._poll_tables, now),
        ]
        for job in jobs:
            if job.name in self._full_sync_pending:
                job.due = now + _RETRY_S
        while not stop.is_set():
            now = self._clock.monotonic()
            is_requested = self._sync_requested.is_set()
            if is_requested:
                self._sync_requested.clear()
                jobs[0].due = now
            for job in jobs:
                if job.due <= now and not stop.is_set():
                    again_s = self._run_job(job, stop)
                    if is_requested and job is jobs[0]:
                        again_s = min(again_s, soon_s)
                    job.due = self._clock.monotonic() + again_s
            self._clock.wait(stop, max(0.01, min(job.due for job in jobs) - self._clock.monotonic()))

    def _run_job(self, job: _Job, stop: threading.Event) -> float:
        """Run a job; return after how many seconds it is due again."""
        try:
            is_done = job.act()
        except DatabaseUnavailable as error:
            if self.database_error is None:
                _log.warning("catalog_unavailable", gatherer=self._settings.name, error=error)
            self.database_error = str(error)
            if job.name == "markets":
                self._load_without_database()
            return min(job.every_s, _RETRY_S)
        except KalshiPlatformError as error:
            if not stop.is_set():
                _log.warning("catalog_sync_failed", gatherer=self._settings.name, listing=job.name, error=error)
                self.failing[job.name] = str(error)
            is_done = False
        if not is_done:
            # A listing that stays broken is read ever more rarely, at least as often as a whole one.
            job.failures += 1
            return exponential(_RETRY_S, job.every_s, job.failures - 1)
        job.failures = 0
        if self.database_error is not None and job.name != "markets":
            # Announcements while the catalog was unavailable could not be stored.
            self.request_sync()
        self.database_error = None
        return job.every_s

    def _try_sync(self, what: str) -> bool:
        """Sync a listing, or record why not; return whether it was read. Raises DatabaseUnavailable."""
        try:
            self._sync(what)
        except DatabaseUnavailable:
            raise
        except KalshiPlatformError as error:
            _log.warning("catalog_sync_failed", gatherer=self._settings.name, listing=what, error=error)
            self.failing[what] = str(error)
            return False
        return True

    def _reconcile(self) -> bool:
        is_whole = self._sync("markets")
        # A full read, with everything that polling might have missed.
        if self._poller.refresh():
            self._on_change()
        return is_whole

    def _sync_parents(self, what: str) -> bool:
        is_whole = self._sync(what)
        # The filter may depend on the series and events just read.
        if self._filters_by_parents and self._poller.refresh():
            self._on_change()
        return is_whole

    def _sync(self, what: str) -> bool:
        """Sync one listing; return whether it was whole."""
        rest, store, clock, full = self._rest, self._store, self._clock, what in self._full_sync_pending
        report: SyncReport
        if what == "series":
            report = sync_series(rest, store, clock, full)
        elif what == "events":
            report = sync_events(rest, store, clock, full)
        else:
            report = sync_markets(rest, store, clock, full, self._apply_page)
        self._left_out[what] = report.left_out
        self.left_out = sum(self._left_out.values())
        if report.is_whole:
            self._full_sync_pending.discard(what)
            self.failing.pop(what, None)
            self.last_synced[what] = report.finished_at.isoformat()
        else:
            self._full_sync_pending.add(what)
            self.failing[what] = str(report.lacks)
            share = report.left_out / (report.left_out + report.rows_seen)
            log = _log.error if share > _ALARMING_SHARE else _log.warning
            log(
                "catalog_objects_left_out",
                gatherer=self._settings.name,
                listing=what,
                left_out=report.left_out,
                objects=report.left_out + report.rows_seen,
                error=report.lacks,
                consequence="this sync is not a whole one",
            )
        _log.info(
            "catalog_synced",
            gatherer=self._settings.name,
            listing=what,
            scope=report.scope,
            rows_seen=report.rows_seen,
            rows_changed=report.rows_changed,
        )
        self._on_synced(CatalogSynced(**report._asdict()))
        return report.is_whole

    def _apply_page(self, infos: Sequence[MarketInfo]) -> None:
        """Update the registry with each page, so that recording begins with the first page of a listing."""
        if self._registry.update(infos):
            self._on_change()

    def _poll_tables(self) -> bool:
        if self._poller.poll():
            self._on_change()
        return True

    def _refresh_from_tables(self) -> None:
        """Fill the registry from the tables as they are."""
        try:
            if self._poller.refresh():
                self._on_change()
        except DatabaseUnavailable as error:
            self.database_error = str(error)

    def _load_without_database(self) -> bool:
        """Fill the registry from REST; return whether that worked."""
        if self._settings.market_filter.categories:
            try:
                self._registry.set_parents({s.ticker: s.category for s in self._rest.iter_series() if s.category}, {})
            except KalshiPlatformError as error:
                self.failing["series"] = str(error)
                _log.warning("listing_unreadable", gatherer=self._settings.name, listing="series", error=error)
        is_read = True
        for status in _LIVING:
            try:
                if self._registry.update(self._rest.iter_markets(status=status, on_skipped=self._record_unreadable)):
                    self._on_change()
            except KalshiPlatformError as error:
                self.failing["markets"] = str(error)
                _log.warning("listing_unreadable", gatherer=self._settings.name, listing="markets", error=error)
                is_read = False
        return is_read or bool(self._registry.counts())

    def _record_unreadable(self, reason: str) -> None:
        self.failing["markets"] = reason
