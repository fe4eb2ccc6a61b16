"""Moves frames and alarms from the connections to journal, catalog and recovery, and desired markets to the pool."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from kalshi_platform.clock import Clock, wait_until_s
from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.messages import LifecycleBody, parse_frame
from kalshi_platform.exchange.protocol.session import Alarm
from kalshi_platform.gatherer.capture.connection_pool import ConnectionPool
from kalshi_platform.gatherer.capture.connections import COMBO_CHANNEL, LIFECYCLE_CHANNEL, Connection
from kalshi_platform.gatherer.capture.exchange_clock import ExchangeClock
from kalshi_platform.gatherer.capture.snapshot_poller import Recovery
from kalshi_platform.gatherer.journal.writer import JournalWriter
from kalshi_platform.gatherer.markets.catalog_sync_loop import CatalogSyncLoop
from kalshi_platform.gatherer.markets.market_refresher import MarketRefresher
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.alarms import Alarms
from kalshi_platform.gatherer.status.channel_counters import ChannelCounters
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform.market.frames import FrameBatch
from kalshi_platform.market.records import LifecycleEvent, StreamEnded, StreamOpened
from kalshi_platform.monitoring.event_log import event_logger

LIFECYCLE_CHANNELS = frozenset({LIFECYCLE_CHANNEL, COMBO_CHANNEL})
_STEP_S = 1.0
_SHORTEST_STEP_S = 0.02
"""For a simulation that runs many times as fast as the wall clock."""
_RECOVER_AT_ONCE = 1_000
_log = event_logger(__name__)


class SessionRequests:
    """Queues requests of other parts to the connections, until `MarketFollower` serves them. Thread-safe."""

    def __init__(self, gatherer: str) -> None:
        self.changed = threading.Event()
        """Set with each request, and when desired markets may have changed; wakes the follower."""
        self.restart_pending = False
        """Whether every session must end before another one may start."""
        self._gatherer = gatherer
        self._lock = threading.Lock()
        self._resubscribe: set[str] = set()
        self._resubscribe_missing: set[str] = set()
        self._lost_books: list[tuple[int, Sequence[str]]] = []

    def books_lost(self, session_id: int, tickers: Sequence[str]) -> None:
        """Request snapshots of books of which the decoder lost a frame of that session."""
        with self._lock:
            self._lost_books.append((session_id, tickers))
        self.changed.set()

    def resubscribe(self, tickers: Sequence[str]) -> None:
        """Request new subscriptions of markets, each on its connection."""
        with self._lock:
            self._resubscribe.update(tickers)
        self.changed.set()

    def resubscribe_missing(self, tickers: Sequence[str]) -> None:
        """Request new subscriptions of markets on those of their connections that do not follow them."""
        with self._lock:
            self._resubscribe_missing.update(tickers)
        self.changed.set()

    def restart_sessions(self) -> None:
        """Request that every session ends, and another one starts.

        The ledger may lack the start of the open sessions, and then nothing of them counts.
        """
        _log.warning("sessions_restarted", gatherer=self._gatherer, reason="the beginning of open sessions may be lost")
        self.restart_pending = True
        self.changed.set()

    def pop_lost_books(self) -> list[tuple[int, Sequence[str]]]:
        """Remove and return what `books_lost` received: sessions and their markets."""
        with self._lock:
            popped, self._lost_books = self._lost_books, []
        return popped

    def pop(self) -> tuple[list[str], list[str]]:
        """Remove and return the markets of `resubscribe` and of `resubscribe_missing`."""
        with self._lock:
            popped = list(self._resubscribe), list(self._resubscribe_missing)
            self._resubscribe, self._resubscribe_missing = set(), set()
        return popped


class Router:
    """Routes what connections receive; called from their threads."""

    def __init__(
        self,
        settings: GathererSettings,
        clock: Clock,
        journal: JournalWriter,
        registry: Registry,
        refresher: MarketRefresher,
        sync_loop: CatalogSyncLoop,
        recovery: Recovery,
        alarms: Alarms,
        requests: SessionRequests,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._journal = journal
        self._registry = registry
        self._refresher = refresher
        self._sync_loop = sync_loop
        self._recovery = recovery
        self._alarms = alarms
        self._requests = requests
        self._has_listened = False
        self._channels: dict[int, str] = {}
        self._was_writable = True
        self._lock = threading.Lock()

    def may_receive(self) -> bool:
        """Return whether sessions may be open: the journal can be written, and no restart is pending."""
        return not self._requests.restart_pending and self._is_writable()

    def on_batch(self, counters: ChannelCounters, session_id: int, batch: FrameBatch) -> None:
        """Record what a connection received; `counters` are that connection's. Raises JournalUnwritable."""
        self._journal.append(session_id, batch)
        for _, mark in batch.marks:
            if isinstance(mark, StreamOpened):
                self._channels[mark.stream_id] = mark.channel
        counters.count(batch, self._channels, self._clock.monotonic())
        for _, mark in batch.marks:
            if isinstance(mark, StreamEnded):
                self._channels.pop(mark.stream_id, None)

    def on_feed_batch(self, counters: ChannelCounters, session_id: int, batch: FrameBatch) -> None:
        """Record what the connection of trades, tickers and lifecycle received, and pass lifecycle on."""
        self.on_batch(counters, session_id, batch)
        lifecycle = {each for each in set(batch.stream_ids) if self._channels.get(each) in LIFECYCLE_CHANNELS}
        if lifecycle:
            for event in _lifecycle_events(batch, lifecycle):
                self._refresher.on_lifecycle_event(event)
        if any(isinstance(mark, StreamOpened) and mark.channel == LIFECYCLE_CHANNEL for _, mark in batch.marks):
            self._on_lifecycle_opened()

    def on_alarm(self, connection: Connection, alarm: Alarm) -> None:
        """Count, log and send an alarm; markets without an answer get their book over REST, and are refreshed."""
        _log.warning(alarm.kind, gatherer=self._settings.name, connection=connection.name, detail=alarm.detail)
        self._alarms.raise_alarm(alarm.kind, f"{connection.name}: {alarm.detail}")
        if alarm.kind in ("snapshot_unanswered", "error") and alarm.tickers:
            desired = self._registry.last_desired_markets
            tickers = [ticker for ticker in alarm.tickers if ticker in desired]
            self._recovery.request(tickers)
            # Ended markets get no answer and no error: REST shows whether these have ended.
            self._refresher.request(tickers[:_RECOVER_AT_ONCE])

    def _is_writable(self) -> bool:
        """Return whether the journal can be written; log when that changes."""
        is_writable = self._journal.is_writable()
        with self._lock:
            changed, self._was_writable = is_writable != self._was_writable, is_writable
        if changed and is_writable:
            _log.warning("recording_resumed", gatherer=self._settings.name)
        elif changed:
            _log.critical("recording_stalled", gatherer=self._settings.name, error=self._journal.blocked_reason)
        return is_writable

    def _on_lifecycle_opened(self) -> None:
        """Request a sync when announcements resume: those of the gap are not repeated."""
        if self._has_listened:
            self._sync_loop.request_sync()
        self._has_listened = True


def _lifecycle_events(batch: FrameBatch, stream_ids: AbstractSet[int]) -> Iterator[LifecycleEvent]:
    """Yield the events of these streams; the decoder reports what cannot be parsed."""
    for payload, received_at_ns, stream_id, number in zip(
        batch.payloads, batch.received_at_ns, batch.stream_ids, batch.numbers, strict=True
    ):
        if stream_id in stream_ids:
            with contextlib.suppress(UnparsableMessage):
                body = parse_frame(payload).body
                if isinstance(body, LifecycleBody):
                    yield LifecycleEvent(*body, received_at_ns, stream_id, number)


class MarketFollower:
    """Sets the registry's desired markets on the connections, and serves the requests to them."""

    def __init__(
        self,
        settings: GathererSettings,
        clock: Clock,
        registry: Registry,
        refresher: MarketRefresher,
        pool: ConnectionPool,
        requests: SessionRequests,
        exchange_offset: Callable[[], Offset | None] = lambda: None,
    ) -> None:
        """Set up the follower; `exchange_offset` returns this machine's clock against the exchange's."""
        self._settings = settings
        self._clock = clock
        self._registry = registry
        self._refresher = refresher
        self._pool = pool
        self._requests = requests
        self._exchange_clock = ExchangeClock(clock, exchange_offset)

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop`; the code that sets it also sets `changed` of the requests."""
        changed = self._requests.changed
        while not stop.is_set():
            changed.clear()
            # First, so that connections come back even if the rest fails.
            if self._requests.restart_pending and not self._any_is_open():
                self._requests.restart_pending = False
            resubscribe, resubscribe_missing = self._requests.pop()
            self._pool.resubscribe(resubscribe)
            self._pool.resubscribe_missing(resubscribe_missing)
            for session_id, tickers in self._requests.pop_lost_books():
                self._pool.books_lost(session_id, tickers)
            self._follow_registry()
            changed.wait(max(_SHORTEST_STEP_S, wait_until_s(self._clock, _STEP_S)))

    def _follow_registry(self) -> None:
        now_us = self._exchange_clock.now_us()
        if self._settings.follow_books:
            self._pool.set_markets(self._registry.desired_markets(now_us))
        else:
            self._registry.expire_ended(now_us)
            self._pool.set_markets({})
        overdue = self._registry.due_for_refresh(now_us)
        if overdue:
            self._refresher.request(overdue)

    def _any_is_open(self) -> bool:
        return any(connection.is_open for slot in self._pool.slots for connection in slot.connections())
