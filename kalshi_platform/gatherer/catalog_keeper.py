"""Keeps catalog and registry true: full sync at the start, then incremental ones, and following the tables in between.

With the catalog database away the registry is filled from REST alone, so that capture can begin; the database gets
everything with the next sync.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kalshi_platform.catalog.store import CatalogStore, SyncReport
from kalshi_platform.catalog.sync import sync_events, sync_markets, sync_series
from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable, KalshiPlatformError
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.gatherer.catalog_follower import CatalogFollower
from kalshi_platform.gatherer.registry import Registry
from kalshi_platform.gatherer.reports import CatalogSynced
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.catalog import MarketInfo

_LIVING = ("open", "unopened", "paused")
_RETRY_S = 5.0
_VISIBLE_AFTER_S = 5.0
"""REST shows a market some moments after its announcement: one that was announced just before we listened, and read
its lists, is in neither. It is there when the lists are read once more after this time."""
_log = logging.getLogger(__name__)


@dataclass
class _Job:
    """Something done again every `every_s`; `due` is monotonic."""

    name: str
    every_s: float
    act: Callable[[], None]
    due: float


class CatalogKeeper:
    """One thread: `load` once, then `run`."""

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
        """`on_change` is called after the registry learned something."""
        self.last_synced: dict[str, str] = {}
        """When series, events and markets were last synced by this process (ISO), for the heartbeat."""
        self.database_error: str | None = None
        self._hurried = threading.Event()
        self._settings = settings
        self._rest = rest
        self._store = store
        self._registry = registry
        self._clock = clock
        self._on_change = on_change
        self._on_synced = on_synced
        chosen = settings.market_filter
        self._follower = CatalogFollower(store, registry, clock, parents=bool(chosen.series or chosen.categories))
        # A full sync is owed until one succeeded, whatever the tables already hold.
        self._owed = {"series", "events", "markets"}

    def load(self, stop: threading.Event) -> None:
        """Bring catalog and registry up to date, trying until it works; raises nothing but what cannot heal."""
        attempt = 0
        # What a former run knew is followed while the exchange is asked for the rest.
        self._refresh_from_tables()
        while not stop.is_set():
            try:
                self._sync_all()
                self._follower.refresh()
            except DatabaseUnavailable as error:
                self.database_error = str(error)
                _log.warning("%s: catalog away (%s); asking REST for the markets", self._settings.name, error)
                if self._load_without_database():
                    return
            except KalshiPlatformError as error:
                if not stop.is_set():
                    _log.warning("%s: the catalog could not be synced: %s", self._settings.name, error)
                self._refresh_from_tables()
            else:
                self._on_change()
                return
            attempt += 1
            self._clock.wait(stop, min(_RETRY_S, 0.5 * 2 ** min(attempt, 5)))

    def hurry(self) -> None:
        """Announcements may have been missed: ask REST for changed markets now, not when it is due. Any thread."""
        self._hurried.set()

    def run(self, stop: threading.Event) -> None:
        """Sync and follow by the clock until `stop`."""
        settings, now = self._settings, self._clock.monotonic()
        soon_s = min(_VISIBLE_AFTER_S, settings.reconcile_interval_s)
        jobs = [
            _Job("markets", settings.reconcile_interval_s, self._reconcile, now + soon_s),
            _Job("series", settings.events_interval_s, self._sync_parents, now + settings.events_interval_s),
            _Job("follow", settings.catalog_follow_interval_s, self._follow, now),
        ]
        if self._owed:
            for job in jobs:
                job.due = now + _RETRY_S
        while not stop.is_set():
            now = self._clock.monotonic()
            hurried = self._hurried.is_set()
            if hurried:
                self._hurried.clear()
                jobs[0].due = now
            for job in jobs:
                if job.due <= now and not stop.is_set():
                    again_s = self._do(job, stop)
                    if hurried and job is jobs[0]:
                        again_s = min(again_s, soon_s)
                    job.due = self._clock.monotonic() + again_s
            self._clock.wait(stop, max(0.01, min(job.due for job in jobs) - self._clock.monotonic()))

    def _do(self, job: _Job, stop: threading.Event) -> float:
        """Do a job; return after how many seconds it is due again."""
        try:
            job.act()
        except DatabaseUnavailable as error:
            if self.database_error is None:
                _log.warning("%s: catalog away: %s", self._settings.name, error)
            self.database_error = str(error)
            if job.name == "markets":
                self._load_without_database()
            return min(job.every_s, _RETRY_S)
        except KalshiPlatformError as error:
            if not stop.is_set():
                _log.warning("%s: sync of %s failed: %s", self._settings.name, job.name, error)
            return min(job.every_s, _RETRY_S)
        if self.database_error is not None and job.name != "markets":
            # What was announced while the catalog was away could not be stored.
            self.hurry()
        self.database_error = None
        return job.every_s

    def _sync_all(self) -> None:
        for what in ("series", "events", "markets"):
            if what in self._owed:
                self._sync(what)

    def _reconcile(self) -> None:
        self._sync("markets")
        # Everything anew: what following by time might have missed is in here.
        if self._follower.refresh():
            self._on_change()

    def _sync_parents(self) -> None:
        self._sync("series")
        self._sync("events")

    def _sync(self, what: str) -> None:
        rest, store, clock, full = self._rest, self._store, self._clock, what in self._owed
        report: SyncReport
        if what == "series":
            report = sync_series(rest, store, clock, full)
        elif what == "events":
            report = sync_events(rest, store, clock, full)
        else:
            report = sync_markets(rest, store, clock, full, self._listed)
        self._owed.discard(what)
        self.last_synced[what] = report.finished_at.isoformat()
        _log.info(
            "%s: %s sync of %s: %d seen, %d changed",
            self._settings.name,
            report.scope,
            what,
            report.rows_seen,
            report.rows_changed,
        )
        self._on_synced(CatalogSynced(**report._asdict()))

    def _listed(self, infos: Sequence[MarketInfo]) -> None:
        """Recording begins with the first page of a listing, not with the last."""
        if self._registry.update(infos):
            self._on_change()

    def _follow(self) -> None:
        if self._follower.follow():
            self._on_change()

    def _refresh_from_tables(self) -> None:
        """REST fails: what the tables know is better than nothing."""
        try:
            if self._follower.refresh():
                self._on_change()
        except DatabaseUnavailable as error:
            self.database_error = str(error)

    def _load_without_database(self) -> bool:
        """Fill the registry from REST; return whether that worked."""
        try:
            if self._settings.market_filter.categories:
                self._registry.learn({s.ticker: s.category for s in self._rest.iter_series() if s.category}, {})
            for status in _LIVING:
                if self._registry.update(self._rest.iter_markets(status=status)):
                    self._on_change()
        except KalshiPlatformError as error:
            _log.warning("%s: markets could not be read: %s", self._settings.name, error)
            return False
        return True
