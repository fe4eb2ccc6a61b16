"""Refreshes single markets over REST: just created (404 at first), changed, closed or settled ones.

A market is requested at its due time and again, with growing delays, until the answer agrees with its announcements.
Many due markets share one request. A market that is deleted keeps its row, with the announced end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from kalshi_platform.backoff import exponential
from kalshi_platform.catalog import announced
from kalshi_platform.clock import Clock
from kalshi_platform.errors import (
    DatabaseUnavailable,
    KalshiPlatformError,
    MarketNotYetVisible,
    RequestRejected,
    UnparsableMessage,
)
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.market.catalog import EventInfo, MarketInfo
from kalshi_platform.market.records import LifecycleEvent
from kalshi_platform.monitoring.event_log import event_logger

_ONE_BY_ONE = 5
_AT_ONCE = 100
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0
# REST shows a change some moments after its announcement.
_SETTLING_S = 0.3
_GONE_AFTER = 4
"""So many 404s after an announced end mean that the market was deleted; after a creation more are normal."""
_TOMBSTONE_RETRY_S = 1.0
_EVENT_ANNOUNCEMENTS = frozenset({"event_created", "event_lifecycle", "event_fee_update"})
_log = event_logger(__name__)


class MarketsClient(Protocol):
    """Describes the part of the REST client that is needed here."""

    def market(self, ticker: str) -> MarketInfo:
        """Return one market. Raises MarketNotYetVisible."""

    def event(self, event_ticker: str) -> EventInfo:
        """Return one event."""

    def iter_markets(
        self,
        status: str | None = None,
        min_updated_ts: int | None = None,
        mve_filter: str | None = "exclude",
        tickers: Iterable[str] | None = None,
        *,
        on_skipped: Callable[[str], None] | None = None,
    ) -> Iterator[MarketInfo]:
        """Yield the markets of these tickers that the exchange has."""


class MarketStore(Protocol):
    """Describes the part of the catalog store that is needed here; raises DatabaseUnavailable."""

    def upsert_markets(self, infos: Iterable[MarketInfo], known_at: datetime) -> object:
        """Store markets as known at `known_at`."""

    def upsert_events(self, infos: Iterable[EventInfo], known_at: datetime) -> object:
        """Store events as known at `known_at`."""

    def market(self, ticker: str) -> MarketInfo | None:
        """Return one market, or None."""

    def mark_vanished(self, tickers: Sequence[str], at: datetime) -> object:
        """Mark markets that the exchange no longer has."""


@dataclass
class _Due:
    due: float
    attempt: int = 0


@dataclass
class _PendingRefresh(_Due):
    announced: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """Event type and message of the last announcement, by aspect."""

    @property
    def is_ending(self) -> bool:
        return any(event_type in announced.ENDS for event_type, _ in self.announced.values())

    def is_met_by(self, info: MarketInfo) -> bool:
        return all(announced.agrees(info, *each) for each in self.announced.values())


@dataclass
class _PendingEventRefresh(_Due):
    fees: dict[str, Any] = field(default_factory=dict)


class MarketRefresher:
    """Fetches from its own thread; `request` and `on_lifecycle_event` may be called from any."""

    def __init__(
        self,
        rest: MarketsClient,
        store: MarketStore,
        registry: Registry,
        clock: Clock,
        attempts: int,
        on_change: Callable[[], None],
    ) -> None:
        """Set up the refresher; `on_change` is called after each change of the registry."""
        self.fetched = 0
        self.not_visible = 0
        self._rest = rest
        self._store = store
        self._registry = registry
        self._clock = clock
        self._attempts = attempts
        self._on_change = on_change
        self._pending: dict[str, _PendingRefresh] = {}
        self._events: dict[str, _PendingEventRefresh] = {}
        # Deleted markets whose end is not in the catalog yet. REST no longer shows it, so no sync makes up for it.
        self._pending_tombstones: dict[str, _PendingRefresh] = {}
        self._tombstones_at = 0.0
        self._wake = threading.Condition()

    def request(self, tickers: Iterable[str]) -> None:
        """Fetch these markets soon."""
        with self._wake:
            for ticker in tickers:
                self._schedule(ticker, self._clock.monotonic())
            self._wake.notify_all()

    def on_lifecycle_event(self, event: LifecycleEvent) -> None:
        """Apply an announcement without waiting: end ended markets, follow new ones, refresh changed ones."""
        message: dict[str, Any] = msgspec.json.decode(event.content)
        now = self._clock.monotonic()
        if event.event_type in _EVENT_ANNOUNCEMENTS:
            with self._wake:
                pending = self._events.setdefault(event.ticker, _PendingEventRefresh(now))
                pending.due = min(pending.due, now)
                if event.event_type == "event_fee_update":
                    pending.fees = message
                    pending.due = max(pending.due, now + _SETTLING_S)
                self._wake.notify_all()
            return
        if event.event_type in announced.ENDS:
            self._registry.mark_ended(event.ticker)
            self._on_change()
        elif event.event_type == "activated":
            self._registry.clear_ended(event.ticker)
        elif event.event_type == "created":
            # Its first orders may come before REST shows it.
            info = announced.created(message)
            if info is not None and not self._registry.contains(info.ticker) and self._registry.update([info]):
                self._on_change()
        with self._wake:
            due = now if event.event_type == "created" else now + _SETTLING_S
            wanted = self._schedule(event.ticker, due)
            wanted.announced[announced.aspect_of(event.event_type)] = (event.event_type, message)
            wanted.attempt = 0
            self._wake.notify_all()

    def _schedule(self, ticker: str, due: float) -> _PendingRefresh:
        pending = self._pending.setdefault(ticker, _PendingRefresh(due))
        pending.due = min(pending.due, due)
        return pending

    def run(self, stop: threading.Event) -> None:
        """Serve the requests until `stop`."""
        while not stop.is_set():
            tickers, events = self._wait_for_due()
            self._write_pending_tombstones()
            # Markets must be recorded; events only describe them, and their failure must not delay markets.
            for fetch, names, queue in (
                (self._fetch_markets, tickers, self._pending),
                (self._fetch_events, events, self._events),
            ):
                try:
                    fetch(names)
                except KalshiPlatformError as error:
                    # What was not fetched is due again, after a pause.
                    _log.warning("market_refresh_failed", error=error)
                    with self._wake:
                        now = self._clock.monotonic()
                        for each in queue.values():
                            each.due = max(each.due, now + 1.0)
                    self._clock.wait(stop, 1.0)

    def _fetch_markets(self, tickers: Sequence[str]) -> None:
        if len(tickers) > _ONE_BY_ONE:
            self._fetch_many(tickers)
            return
        for ticker in tickers:
            self._fetch_one(ticker)

    def _fetch_events(self, tickers: Sequence[str]) -> None:
        for ticker in tickers:
            self._fetch_event(ticker)

    def _wait_for_due(self) -> tuple[list[str], list[str]]:
        with self._wake:
            now = self._clock.monotonic()
            next_due = min(
                (pending.due for pending in (*self._pending.values(), *self._events.values())), default=now + 0.5
            )
            if next_due > now:
                self._wake.wait(min(0.5, max(0.01, next_due - now)))
                now = self._clock.monotonic()
            events = [ticker for ticker, event in self._events.items() if event.due <= now]
            due = [ticker for ticker, pending in self._pending.items() if pending.due <= now]
            return due[:_AT_ONCE], events[:_AT_ONCE]

    def _fetch_one(self, ticker: str) -> None:
        known_at = self._clock.now()
        try:
            info = self._rest.market(ticker)
        except MarketNotYetVisible:
            self._handle_not_found(ticker)
            return
        except (RequestRejected, UnparsableMessage) as error:
            _log.warning("market_unreadable", market=ticker[:100], error=error)
            self._handle_unreadable(ticker)
            return
        self._apply_found([info], known_at)

    def _fetch_many(self, tickers: Sequence[str]) -> None:
        known_at = self._clock.now()
        # What the listing lacks is requested by name.
        infos = list(self._rest.iter_markets(mve_filter=None, tickers=tickers, on_skipped=lambda _reason: None))
        self._apply_found(infos, known_at)
        # An absence from a list proves nothing; a 404 for the market itself does.
        for ticker in sorted(set(tickers) - {info.ticker for info in infos})[:_ONE_BY_ONE]:
            self._fetch_one(ticker)

    def _fetch_event(self, ticker: str) -> None:
        known_at = self._clock.now()
        try:
            info = self._rest.event(ticker)
        except (RequestRejected, UnparsableMessage) as error:
            _log.info("event_unreadable", event_ticker=ticker[:100], error=error)
            info = None
        if info is not None:
            found = info
            self._store_or_log(lambda: self._store.upsert_events([found], known_at))
        with self._wake:
            pending = self._events[ticker]
            if (
                info is None or not announced.event_agrees(info, pending.fees)
            ) and pending.attempt + 1 < self._attempts:
                self._retry_later(pending)
            else:
                del self._events[ticker]

    def _apply_found(self, infos: Sequence[MarketInfo], known_at: datetime) -> None:
        if not infos:
            return
        self.fetched += len(infos)
        self._registry.update(infos)
        self._on_change()
        self._store_or_log(lambda: self._store.upsert_markets(infos, known_at))
        with self._wake:
            for info in infos:
                pending = self._pending.get(info.ticker)
                if pending is None:
                    continue
                if not pending.is_met_by(info) and pending.attempt + 1 < self._attempts:
                    self._retry_later(pending)
                else:
                    del self._pending[info.ticker]

    def _handle_unreadable(self, ticker: str) -> None:
        """Retry later, a few times: an unreadable market must not delay the others."""
        with self._wake:
            pending = self._pending[ticker]
            if pending.attempt + 1 < self._attempts:
                self._retry_later(pending)
            else:
                del self._pending[ticker]

    def _handle_not_found(self, ticker: str) -> None:
        self.not_visible += 1
        with self._wake:
            pending = self._pending[ticker]
            if pending.attempt + 1 < (min(self._attempts, _GONE_AFTER) if pending.is_ending else self._attempts):
                self._retry_later(pending)
                return
            del self._pending[ticker]
        if pending.is_ending or ("created" not in pending.announced and self._registry.contains(ticker)):
            # Provisional markets are deleted after their end.
            _log.info("market_vanished", market=ticker)
            self._registry.mark_ended(ticker)
            self._on_change()
            self._pending_tombstones[ticker] = pending
            self._write_pending_tombstones()
        else:
            _log.warning("market_not_visible", market=ticker, consequence="the next sync brings it")

    def _write_pending_tombstones(self) -> None:
        """Write deleted markets' ends to the catalog; while it is unavailable, retry every second."""
        if self._clock.monotonic() < self._tombstones_at:
            return
        for ticker, pending in list(self._pending_tombstones.items()):
            try:
                self._write_tombstone(ticker, pending)
            except DatabaseUnavailable as error:
                _log.warning("tombstone_deferred", market=ticker, error=error)
                self._tombstones_at = self._clock.monotonic() + _TOMBSTONE_RETRY_S
                return
            del self._pending_tombstones[ticker]

    def _write_tombstone(self, ticker: str, pending: _PendingRefresh) -> None:
        """Write what was announced of a market that REST no longer shows, and mark it as vanished."""
        info = self._store.market(ticker)
        if info is None and "created" in pending.announced:
            info = announced.created(pending.announced["created"][1])
        market = info
        for event_type, message in pending.announced.values():
            market = announced.applied(market, event_type, message) if market is not None else None
        now = self._clock.now()
        if market is not None:
            self._store.upsert_markets([market], now)
        self._store.mark_vanished([ticker], now + timedelta(microseconds=1))

    def _retry_later(self, pending: _Due) -> None:
        pending.due = self._clock.monotonic() + exponential(_FIRST_RETRY_S, _LONGEST_RETRY_S, pending.attempt)
        pending.attempt += 1

    def _store_or_log(self, write: Callable[[], object]) -> None:
        try:
            write()
        except DatabaseUnavailable as error:
            _log.warning("catalog_not_written", error=error, consequence="the next sync writes it")
