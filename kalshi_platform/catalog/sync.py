"""Syncs series, events and markets from REST to the catalog: all of them, or what changed since the last sync.

A full sync lists what can still change; an incremental one requests what changed since the last finished sync began,
with an overlap for clocks that disagree. Objects are stored page by page, so memory stays small (a full sync keeps
eight bytes per market beside), and a sync that fails keeps what it has stored: the next one starts where the last
*finished* one did. A listing that was cut, or of which objects could not be read, is not the whole: its sync is
recorded with what it lacks, although everything else of it is stored. A listing writes what changed; other
rows get a new date only when they are older than `PATIENCE`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from typing import Self, TypeVar

from kalshi_platform.catalog.store import CatalogStore, Changed, SyncReport
from kalshi_platform.clock import Clock
from kalshi_platform.errors import (
    ConnectionLost,
    DatabaseUnavailable,
    ExchangeUnavailable,
    KalshiPlatformError,
    MarketNotYetVisible,
    RateLimited,
    RequestRejected,
    UnparsableMessage,
)
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.market.catalog import MarketInfo
from kalshi_platform.market.names import readable
from kalshi_platform.monitoring.event_log import event_logger

__all__ = ["SyncReport", "refresh_markets", "sync_events", "sync_markets", "sync_series"]

OVERLAP = timedelta(minutes=5)
CHUNK = 1_000
"""Objects per transaction: one page of markets."""
PATIENCE = timedelta(minutes=10)
TICKERS_PER_REQUEST = 100
"""Keeps the query string below the limits of proxies."""
_SCANNED_AT_ONCE = 10_000
_OVERDUE_PER_SYNC = 1_000
_UNKNOWN_PER_SYNC = 1_000
_FULL_MARKETS = ("open", "unopened", "paused")
_FULL_EVENTS = ("open", "unopened", "closed")
_T = TypeVar("_T")
_log = event_logger(__name__)


def sync_series(rest: RestClient, store: CatalogStore, clock: Clock, full: bool) -> SyncReport:
    """Read all series, or those that changed since the last sync."""
    with _Sync(store, clock, "series", full) as sync:
        sync.store_all(rest.iter_series(min_updated_ts=sync.since_s, on_skipped=sync.leave_out), store.upsert_series)
    return sync.report()


def sync_events(rest: RestClient, store: CatalogStore, clock: Clock, full: bool) -> SyncReport:
    """Read the events that have markets to come, trading or not yet settled, or those that changed since the last sync.

    Kalshi never stops listing old events; a full sync leaves out those of which every market is settled.
    """
    with _Sync(store, clock, "events", full) as sync:
        if sync.since_s is None:
            sync.each(
                _FULL_EVENTS,
                lambda status: sync.store_all(
                    rest.iter_events(status=status, on_skipped=sync.leave_out), store.upsert_events
                ),
            )
        else:
            changed = rest.iter_events(min_updated_ts=sync.since_s, on_skipped=sync.leave_out)
            sync.store_all(changed, store.upsert_events)
    return sync.report()


def sync_markets(
    rest: RestClient,
    store: CatalogStore,
    clock: Clock,
    full: bool,
    on_listed: Callable[[Sequence[MarketInfo]], None] = lambda _: None,
) -> SyncReport:
    """Read the markets that trade or will, or those that changed since the last sync; combos are left out.

    After a full sync every unsettled market of the catalog that was not in it is requested by name; after an
    incremental one, those that should have opened or closed by the clock, which counts as no update. Markets that the
    exchange has deleted become 'vanished'. Events and series that markets name and the catalog lacks are fetched too.
    `on_listed` gets every page of a listing before it is stored, so that following markets need not wait for the last.
    """
    with _Sync(store, clock, "markets", full) as sync:
        if sync.since_s is None:
            sync.each(
                _FULL_MARKETS,
                lambda status: sync.store_all(
                    sync.remember(rest.iter_markets(status=status, on_skipped=sync.leave_out)),
                    store.upsert_markets,
                    on_listed,
                ),
            )
            for tickers in store.unsettled_before(sync.started_at, _SCANNED_AT_ONCE):
                sync.add(refresh_markets(rest, store, clock, sync.unseen(tickers)))
        else:
            changed = rest.iter_markets(min_updated_ts=sync.since_s, on_skipped=sync.leave_out)
            sync.store_all(changed, store.upsert_markets, on_listed)
            sync.add(refresh_markets(rest, store, clock, store.overdue(clock.now(), _OVERDUE_PER_SYNC)))
        _fetch_parents(rest, store, clock)
    return sync.report()


def refresh_markets(rest: RestClient, store: CatalogStore, clock: Clock, tickers: Sequence[str]) -> Changed:
    """Fetch markets by name and store the answers; those that the exchange no longer has become 'vanished'."""
    total = Changed(0, 0)
    for start in range(0, len(tickers), TICKERS_PER_REQUEST):
        part = tickers[start : start + TICKERS_PER_REQUEST]
        known_at = clock.now()
        # What the listing lacks is requested by name.
        found = list(rest.iter_markets(mve_filter=None, tickers=part, on_skipped=_ignore_skipped))
        missing = sorted(set(part) - {info.ticker for info in found})
        total = _sum(total, store.upsert_markets(found, known_at))
        gone = []
        for ticker in missing:
            # An absence from a list proves nothing; a 404 for the market itself does.
            known_at = clock.now()
            try:
                total = _sum(total, store.upsert_markets([rest.market(ticker)], known_at))
            except MarketNotYetVisible:
                gone.append(ticker)
            except UnparsableMessage as error:
                _log.warning(
                    "market_unreadable", market=ticker[:100], error=error, consequence="it stays as it was known"
                )
        vanished = store.mark_vanished(gone, clock.now())
        if vanished:
            _log.info("markets_vanished", markets=vanished, first=gone[0])
        total = _sum(total, Changed(len(gone), vanished))
    return total


def _ignore_skipped(_reason: str) -> None:
    return None


def _fetch_parents(rest: RestClient, store: CatalogStore, clock: Clock) -> None:
    """Fetch the events and series that markets name; what the exchange does not show now, the next sync fetches.

    They only describe the markets, which are stored: the markets' sync is whole without them.
    """
    try:
        for event_ticker in store.unknown_events(_UNKNOWN_PER_SYNC):
            with _tolerated(f"event {event_ticker}"):
                known_at = clock.now()
                store.upsert_events([rest.event(event_ticker)], known_at)
        for series_ticker in store.unknown_series(_UNKNOWN_PER_SYNC):
            with _tolerated(f"series {series_ticker}"):
                known_at = clock.now()
                store.upsert_series([rest.series(series_ticker)], known_at)
    except (ConnectionLost, ExchangeUnavailable, RateLimited) as error:
        _log.warning(
            "parents_not_synced", error=error, consequence="events and series of new markets come with the next sync"
        )


@contextmanager
def _tolerated(what: str) -> Iterator[None]:
    """Log one parent that the exchange refuses, or that cannot be read: it must not cost the others."""
    try:
        yield
    except (RequestRejected, UnparsableMessage) as error:
        _log.warning("parent_not_synced", what=what[:150], error=error, consequence="it comes with the next sync")


class _Sync:
    """Records one row of catalog_syncs: begun on entry, finished on a clean exit, marked failed otherwise."""

    def __init__(self, store: CatalogStore, clock: Clock, what: str, full: bool) -> None:
        self._store = store
        self._clock = clock
        self._what = what
        last = None if full else store.last_sync(what)
        self.scope = "full" if last is None else "incremental"
        self.since_s = None if last is None else int((last.started_at - OVERLAP).timestamp())
        self.started_at = clock.now()
        self._finished_at = self.started_at
        self._total = Changed(0, 0)
        self._sync_id = 0
        self._listed = array("q")
        self._left_out: list[str] = []

    def __enter__(self) -> Self:
        self._sync_id = self._store.begin_sync(self._what, self.scope, self.started_at)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._finished_at = self._clock.now()
            self._store.record_sync(self._sync_id, self._total, self.started_at, self._finished_at, self._lacks())
            return
        message = f"{type(error).__name__}: {error}"[:500]
        try:
            self._store.record_sync(self._sync_id, self._total, self.started_at, None, message)
        except Exception:  # noqa: BLE001 - the failure itself is what the caller gets
            _log.warning("failed_sync_not_recorded", listing=self._what, exc_info=True)

    def each(self, statuses: Iterable[str], read: Callable[[str], None]) -> None:
        """Read one listing after the other, also after a failure; raise the first failure at the end."""
        failed: KalshiPlatformError | None = None
        for status in statuses:
            try:
                read(status)
            except DatabaseUnavailable:
                raise
            except KalshiPlatformError as error:
                _log.warning("listing_unreadable", listing=self._what, status=status, error=error)
                failed = failed or error
        if failed is not None:
            raise failed

    def leave_out(self, reason: str) -> None:
        """Record why the listing is not whole."""
        # It quotes what came over the wire, and goes into a table, a log line and the health page.
        self._left_out.append(readable(reason, 200))

    def remember(self, infos: Iterable[MarketInfo]) -> Iterator[MarketInfo]:
        """Yield the markets, and remember that they were listed."""
        for info in infos:
            self._listed.append(hash(info.ticker))
            yield info

    def unseen(self, tickers: Sequence[str]) -> list[str]:
        """Return the tickers that were not listed."""
        requested = {hash(ticker): ticker for ticker in tickers}
        for each in self._listed:
            requested.pop(each, None)
        return list(requested.values())

    def store_all(
        self,
        infos: Iterable[_T],
        upsert: Callable[[Iterable[_T], datetime, timedelta], Changed],
        on_listed: Callable[[Sequence[_T]], None] = lambda _: None,
    ) -> None:
        """Store the objects in chunks, each dated before the request of its page."""
        iterator = iter(infos)
        # A page may hold the end of one chunk and the beginning of the next: date by the chunk before.
        known_at = self.started_at
        while True:
            requested_at = self._clock.now()
            chunk = list(islice(iterator, CHUNK))
            if not chunk:
                return
            on_listed(chunk)
            self.add(upsert(chunk, known_at, PATIENCE))
            known_at = requested_at

    def add(self, changed: Changed) -> None:
        """Add the counts of a write."""
        self._total = _sum(self._total, changed)

    def report(self) -> SyncReport:
        """Return the report of the finished sync."""
        total = self._total
        return SyncReport(
            self._what, self.scope, total.seen, total.changed, self.started_at, self._finished_at,
            len(self._left_out), self._lacks(),
        )  # fmt: skip

    def _lacks(self) -> str | None:
        if not self._left_out:
            return None
        return f"{len(self._left_out)} left out: {'; '.join(self._left_out[:3])}"[:500]


def _sum(one: Changed, other: Changed) -> Changed:
    return Changed(one.seen + other.seen, one.changed + other.changed)
