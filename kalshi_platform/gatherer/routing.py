"""Where records, alarms and wishes go: connections → writer, catalog, poller, recovery; registry → connections."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from kalshi_platform.clock import Clock
from kalshi_platform.exchange.protocol.session import Alarm
from kalshi_platform.gatherer.capture.connection_pool import ConnectionPool
from kalshi_platform.gatherer.capture.connections import LIFECYCLE_CHANNEL, Connection
from kalshi_platform.gatherer.capture.exchange_clock import ExchangeClock
from kalshi_platform.gatherer.capture.snapshot_poller import Recovery, SnapshotPoller
from kalshi_platform.gatherer.ingest.writer import Writer
from kalshi_platform.gatherer.markets.catalog_sync_loop import CatalogSyncLoop
from kalshi_platform.gatherer.markets.market_refresher import MarketRefresher
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.channel_counters import ChannelCounters
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform.market.records import LifecycleEvent, Record, StreamOpened

_STEP_S = 1.0
_RECOVER_AT_ONCE = 1_000
_log = logging.getLogger(__name__)


class Router:
    """Knows all parts; they know only the methods they were given. Its parts are put in by `assemble`."""

    keeper: CatalogSyncLoop
    fetcher: MarketRefresher
    recovery: Recovery
    poller: SnapshotPoller
    fleet: ConnectionPool

    def __init__(
        self,
        settings: GathererSettings,
        registry: Registry,
        clock: Clock,
        exchange_offset: Callable[[], Offset | None] = lambda: None,
    ) -> None:
        """`exchange_offset`: this machine's clock against the exchange's."""
        self.writer: Writer | None = None
        """Set before the first thread that puts records starts."""
        self.wanted: Mapping[str, int] = {}
        """Markets whose books are to be followed: ticker → exchange_index."""
        self.changed = threading.Event()
        """Set when the registry may wish something else; wakes `follow`."""
        self.alarms: Counter[str] = Counter()
        """Alarms since the start, by kind."""
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._exchange_clock = ExchangeClock(clock, exchange_offset)
        self._has_listened = False
        self._is_reconnecting = False
        self._alarms_lock = threading.Lock()

    # -- registry → connections

    def follow(self, stop: threading.Event) -> None:
        """Hand the registry's wishes to the connections until `stop`; the caller sets `changed` with it."""
        while not stop.is_set():
            self.changed.clear()
            # First: should the rest fail, connections still come back.
            if self._is_reconnecting and not self._any_is_open():
                self._is_reconnecting = False
            self._follow_registry()
            self.changed.wait(_STEP_S)

    def _follow_registry(self) -> None:
        now_us = self._exchange_clock.now_us()
        if self._settings.follow_books:
            self.wanted = self._registry.desired_markets(now_us)
        else:
            self._registry.expire_ended(now_us)
        self.fleet.set_markets(self.wanted)
        overdue = self._registry.due_for_refresh(now_us)
        if overdue:
            self.fetcher.request(overdue)

    # -- records; from the threads that receive them

    def put(self, records: Sequence[Record]) -> None:
        """Give records to the writer."""
        assert self.writer is not None  # noqa: S101 - threads that put start after it
        self.writer.put(records)

    def put_when_room(self, records: Sequence[Record]) -> None:
        """Give the writer records that were not pushed by the exchange: their thread waits while it is stalled."""
        assert self.writer is not None  # noqa: S101 - as above
        self.writer.wait_for_room()
        self.writer.put(records)

    def may_receive(self) -> bool:
        """Whether the writer takes what a connection would receive, and no session is to end."""
        return not self._is_reconnecting and (self.writer is None or not self.writer.is_stalled)

    def put_books(self, counters: ChannelCounters, records: Sequence[Record]) -> None:
        """Take what a connection of books received; `counters` count it."""
        counters.count(records, self._clock.monotonic())
        self.poller.saw(records)
        self.put(records)

    def put_feed(self, counters: ChannelCounters, records: Sequence[Record]) -> None:
        """Take what the connection of trades, tickers and lifecycle received."""
        counters.count(records, self._clock.monotonic())
        self.put(records)
        for record in records:
            if type(record) is LifecycleEvent:
                self.fetcher.on_lifecycle_event(record)
            elif type(record) is StreamOpened and record.channel == LIFECYCLE_CHANNEL:
                self._listening()

    def _listening(self) -> None:
        """Lifecycle announcements come (again): those of the time between are not repeated, so REST is asked."""
        if self._has_listened:
            self.keeper.request_sync()
        self._has_listened = True

    # -- what needs care

    def alarmed(self, connection: Connection, alarm: Alarm) -> None:
        """Count and tell an alarm; markets without an answer get their book over REST, and are asked about."""
        name, extra = self._settings.name, {"repeats_as": alarm.kind}
        _log.warning("%s %s: %s: %s", name, connection.name, alarm.kind, alarm.detail, extra=extra)
        self.count_alarm(alarm.kind)
        self.fleet.on_alarm(connection, alarm)
        if alarm.kind in ("snapshot_unanswered", "error") and alarm.tickers:
            tickers = [ticker for ticker in alarm.tickers if ticker in self.wanted]
            self.recovery.ask(tickers)
            # Markets that are over stay mute without a word: ask whether these are.
            self.fetcher.request(tickers[:_RECOVER_AT_ONCE])

    def count_alarm(self, kind: str) -> None:
        """Count something that somebody should know."""
        with self._alarms_lock:
            self.alarms[kind] += 1

    def resubscribe(self, tickers: Sequence[str]) -> None:
        """Subscribe markets afresh, each on its connection."""
        self.fleet.resubscribe(tickers)

    def resubscribe_missing(self, tickers: Sequence[str]) -> None:
        """Subscribe markets afresh on those of their connections that do not follow them."""
        self.fleet.resubscribe_missing(tickers)

    def reconnect(self) -> None:
        """Let every session end, and others begin: how the open ones began may have been lost on its way to the ledger,
        and then nothing of them counts."""
        _log.warning("%s: every connection begins anew: the beginning of its session may be lost", self._settings.name)
        self._is_reconnecting = True
        self.changed.set()

    def _any_is_open(self) -> bool:
        return any(connection.is_open for slot in self.fleet.slots for connection in slot.connections())

    def out_of_sync(self) -> frozenset[str]:
        """Markets that lost a frame and wait for a snapshot."""
        return self.fleet.out_of_sync()

    def followed(self) -> int:
        """How many books are followed now."""
        return self.fleet.followed()
