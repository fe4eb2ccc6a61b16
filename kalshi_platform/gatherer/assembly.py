"""Makes the parts of one gatherer, each from those before it; nothing runs yet."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import msgspec

from kalshi_platform.catalog.store import CatalogStore
from kalshi_platform.clock import Clock
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.capture.connect_pacing import ConnectThrottle
from kalshi_platform.gatherer.capture.connection_pool import FEED, ConnectionPool, OnAlarm
from kalshi_platform.gatherer.capture.connections import COMBO_CHANNEL, FEED_CHANNELS, Connection
from kalshi_platform.gatherer.capture.snapshot_poller import BookActivity, Recovery, SnapshotPoller, record_books
from kalshi_platform.gatherer.ids import IdSource
from kalshi_platform.gatherer.ingest.batch_reader import IngestCallbacks
from kalshi_platform.gatherer.ingest.fence import Fence
from kalshi_platform.gatherer.ingest.ingest import Ingest
from kalshi_platform.gatherer.ingest.open_transactions import OpenTransactions
from kalshi_platform.gatherer.journal.housekeeping import Housekeeping
from kalshi_platform.gatherer.journal.segments import FOLDER, created_ns
from kalshi_platform.gatherer.journal.writer import JournalLimits, JournalWriter, open_journal
from kalshi_platform.gatherer.lock import GathererLock
from kalshi_platform.gatherer.markets.catalog_sync_loop import CatalogSyncLoop
from kalshi_platform.gatherer.markets.market_refresher import MarketRefresher
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.gatherer.routing import MarketFollower, Router, SessionRequests
from kalshi_platform.gatherer.schema_checks import DatabaseChecks
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.alarms import Alarms
from kalshi_platform.gatherer.status.channel_counters import ChannelCounters
from kalshi_platform.gatherer.status.clock_skew import ClockSkewMonitor
from kalshi_platform.gatherer.status.reports import Report
from kalshi_platform.gatherer.status.status import GathererStatus, JournalStatus
from kalshi_platform.gatherer.status.wire_shapes import WireShapes
from kalshi_platform.monitoring.alerts.alert_store import LocalAlertStore
from kalshi_platform.monitoring.alerts.sender import AlertSender
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.process_usage import process_usage
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database

_log = event_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Holds the parts of a gatherer."""

    settings: GathererSettings
    exchange: ExchangeSettings
    clock: Clock
    timeseries: Database
    catalog: Database
    lock: GathererLock
    registry: Registry
    rest: RestClient
    sync_loop: CatalogSyncLoop
    refresher: MarketRefresher
    journal: JournalWriter
    housekeeping: Housekeeping
    ingest: Ingest
    recovery: Recovery
    pool: ConnectionPool
    poller: SnapshotPoller
    follower: MarketFollower
    checks: DatabaseChecks
    clock_skew: ClockSkewMonitor
    wire_shapes: WireShapes
    open_transactions: OpenTransactions
    channels: Mapping[str, ChannelCounters]
    """Counts of messages, by the name of the connection."""
    alarms: Alarms
    alerts: AlertSender
    requests: SessionRequests

    def status(self) -> GathererStatus:
        """Return the status of every part as of now."""
        return GathererStatus(
            market_shard=str(self.settings.market_filter.shard),
            followed_markets=self.pool.followed(),
            desired_markets=len(self.registry.last_desired_markets),
            suspect_markets=len(self.pool.out_of_sync()),
            markets=dict(self.registry.counts()),
            channels=ChannelCounters.sum(tuple(self.channels.values()), self.clock.monotonic()),
            connections={slot.name: slot.status(self.channels[slot.name]) for slot in self.pool.slots},
            connection_pool=self.pool.counters,
            ledger=self.ingest.ledger_status(),
            journal=self._journal_status(),
            ingest=self.ingest.status(),
            catalog=msgspec.structs.replace(
                self.sync_loop.status(), fetched=self.refresher.fetched, not_visible=self.refresher.not_visible
            ),
            poller=msgspec.structs.replace(self.poller.status(), recovered=self.recovery.recovered),
            clock=self.clock_skew.status(),
            alarms=self.alarms.counts(),
            alerts_waiting=self.alerts.waiting,
            problems=[
                *self.checks.problems(),
                *self.clock_skew.problems(),
                *self.open_transactions.problems(),
                *self.alerts.problems(),
            ],
            has_database_lock=self.lock.has_database_lock,
            process=process_usage(),
        )

    def _journal_status(self) -> JournalStatus:
        journal, fill = self.journal, self.journal.fill()
        return JournalStatus(
            segment=journal.end.segment,
            bytes_on_disk=fill.used,
            limit_bytes=fill.capacity,
            fill_percent=round(100 * fill.share, 1),
            unwritable=journal.blocked_reason,
            stalls=journal.stalls,
        )

    def dispose(self) -> None:
        """Close the pools of both databases."""
        self.timeseries.dispose()
        self.catalog.dispose()


def assemble(
    settings: GathererSettings,
    exchange: ExchangeSettings,
    clock: Clock,
    bounds: PartitionBounds,
    stop: threading.Event,
    timeseries: Database,
    lock: GathererLock,
    publish: Callable[[Report], None],
) -> Parts:
    """Make all parts, each from those before it; no thread is started and no connection opened.

    The gatherer's folder must be locked: its journal is opened. Raises ConfigurationError where that cannot be used.
    """
    name = settings.name
    alerts = AlertSender(
        settings.alerts, LocalAlertStore(settings.folder / "alerts.json", clock), clock, settings.service
    )
    alarms = Alarms(settings.service, alerts)
    requests = SessionRequests(name)
    catalog = Database(settings.catalog_url, name=f"{name} catalog", pool_size=3)
    ids = IdSource(name, clock)
    registry = Registry(settings.market_filter, settings.close_grace_s)
    wire_shapes = WireShapes(name, timeseries, clock, alarms.raise_alarm)
    rest = RestClient(exchange, clock, stop, wire_shapes.offer_answer)
    store = CatalogStore(catalog, rest.clock_offset)
    sync_loop = CatalogSyncLoop(settings, rest, store, registry, clock, requests.changed.set, publish)
    refresher = MarketRefresher(rest, store, registry, clock, settings.fetch_attempts, requests.changed.set)
    journal = _open_journal(settings, clock)
    activity = BookActivity()
    ingest = Ingest(
        settings,
        timeseries,
        bounds,
        clock,
        journal,
        Fence(journal.journal_id, lock.owner, lock.mark_ledger_lost, functools.partial(created_ns, journal.folder)),
        IngestCallbacks(
            own_sessions=lambda: ids.sessions,
            on_books_lost=requests.books_lost,
            on_lost_claim=requests.resubscribe,
            on_lost_sessions=requests.restart_sessions,
            on_alarm=alarms.raise_alarm,
            on_records=activity.observe,
            on_frames=wire_shapes.offer_frames,
        ),
    )
    on_books = functools.partial(record_books, journal)
    recovery = Recovery(settings, rest, clock, on_books, requests.resubscribe_missing)
    router = Router(settings, clock, journal, registry, refresher, sync_loop, recovery, alarms, requests)
    throttle = ConnectThrottle(settings.reconnect_spacing_s, random.random)
    feed_channels = (*FEED_CHANNELS, COMBO_CHANNEL) if settings.market_filter.include_combos else FEED_CHANNELS
    channels: dict[str, ChannelCounters] = {}

    def connection(name: str, on_alarm: OnAlarm) -> Connection:
        put = functools.partial(
            router.on_feed_batch if name == FEED else router.on_batch, channels.setdefault(name, ChannelCounters())
        )
        subscribed = feed_channels if name == FEED else ()
        return Connection(
            name, settings, exchange, clock, ids, stop, put, on_alarm, subscribed, throttle, router.may_receive
        )

    pool = ConnectionPool(settings, clock, connection, router.on_alarm)
    poller = SnapshotPoller(
        settings, rest, clock, on_books, lambda: registry.last_desired_markets, pool.out_of_sync, publish,
        activity,
    )  # fmt: skip
    return Parts(
        settings=settings,
        exchange=exchange,
        clock=clock,
        timeseries=timeseries,
        catalog=catalog,
        lock=lock,
        registry=registry,
        rest=rest,
        sync_loop=sync_loop,
        refresher=refresher,
        journal=journal,
        housekeeping=Housekeeping(
            journal.folder,
            journal.journal_id,
            clock,
            keep_s=settings.journal_keep_s,
            archive_frames=settings.archive_frames,
            committed=ingest.committed,
            excess_bytes=lambda: journal.fill().excess,
            on_waiting=lambda waits_for: setattr(journal, "waits_for", waits_for),
            on_alarm=alarms.raise_alarm,
        ),
        ingest=ingest,
        recovery=recovery,
        pool=pool,
        poller=poller,
        follower=MarketFollower(settings, clock, registry, refresher, pool, requests, rest.clock_offset),
        checks=DatabaseChecks(settings, timeseries, catalog, alarms.raise_alarm),
        clock_skew=ClockSkewMonitor(name, timeseries, clock, rest.clock_offset, alarms.raise_alarm),
        wire_shapes=wire_shapes,
        open_transactions=OpenTransactions(name, timeseries, clock, alarms.raise_alarm),
        channels=channels,
        alarms=alarms,
        alerts=alerts,
        requests=requests,
    )


def _open_journal(settings: GathererSettings, clock: Clock) -> JournalWriter:
    spooled = sum(path.stat().st_size for path in (settings.folder / "spool").glob("*.spool"))
    if spooled:
        remedy = "start the version before this one once, with its database, and stop it when its spool is empty"
        _log.error("spool_of_former_version", gatherer=settings.name, size_bytes=spooled, remedy=remedy)
    limits = JournalLimits(settings.journal_segment_bytes, settings.journal_max_bytes, settings.journal_min_free_bytes)
    return open_journal(
        settings.folder / FOLDER, settings.name, clock, limits=limits, code_version=version("kalshi-platform")
    )
