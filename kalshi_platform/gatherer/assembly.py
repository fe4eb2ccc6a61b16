"""Makes the parts of one gatherer, each from those before it; nothing runs yet."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from kalshi_platform.catalog.store import CatalogStore
from kalshi_platform.clock import Clock
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.capture.connect_pacing import ConnectThrottle
from kalshi_platform.gatherer.capture.connection_pool import FEED, ConnectionPool, OnAlarm
from kalshi_platform.gatherer.capture.connections import COMBO_CHANNEL, FEED_CHANNELS, Connection
from kalshi_platform.gatherer.capture.snapshot_poller import BookActivity, Recovery, SnapshotPoller
from kalshi_platform.gatherer.ids import IdSource
from kalshi_platform.gatherer.ingest.fence import Fence
from kalshi_platform.gatherer.ingest.open_transactions import OpenTransactions
from kalshi_platform.gatherer.ingest.writer import Writer
from kalshi_platform.gatherer.journal.spool import Spool
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
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.gatherer.status.wire_shapes import WireShapes
from kalshi_platform.monitoring.alerts.alert_store import LocalAlertStore
from kalshi_platform.monitoring.alerts.sender import AlertSender
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.heartbeat import read_file
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
    writer: Writer
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
            ledger=self.writer.ledger_status(),
            writer=self.writer.status(),
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

    The gatherer's folder must be locked: its spool and its last heartbeat are read.
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
    writer = Writer(
        settings,
        timeseries,
        bounds,
        clock,
        _open_spool(settings),
        own_sessions=lambda: ids.sessions,
        on_lost_claim=requests.resubscribe,
        on_lost_sessions=requests.restart_sessions,
        ending=stop,
        fence=Fence(lock.owner, lock.mark_ledger_lost, requests.restart_sessions, _former_batch_no(settings)),
        on_alarm=alarms.raise_alarm,
    )
    recovery = Recovery(settings, rest, clock, writer.put_blocking, requests.resubscribe_missing)
    activity = BookActivity()
    router = Router(settings, clock, writer, registry, refresher, sync_loop, recovery, activity, alarms, requests)
    throttle = ConnectThrottle(settings.reconnect_spacing_s, random.random)
    feed_channels = (*FEED_CHANNELS, COMBO_CHANNEL) if settings.market_filter.include_combos else FEED_CHANNELS
    channels: dict[str, ChannelCounters] = {}

    def connection(name: str, on_alarm: OnAlarm) -> Connection:
        put = functools.partial(
            router.on_feed_batch if name == FEED else router.on_book_batch,
            channels.setdefault(name, ChannelCounters()),
        )
        subscribed = feed_channels if name == FEED else ()
        return Connection(
            name, settings, exchange, clock, ids, stop, put, on_alarm, subscribed, throttle, router.may_receive
        )

    pool = ConnectionPool(settings, clock, connection, router.on_alarm)
    poller = SnapshotPoller(
        settings, rest, clock, writer.put_blocking, lambda: registry.last_desired_markets, pool.out_of_sync, publish,
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
        writer=writer,
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


def _open_spool(settings: GathererSettings) -> Spool:
    spool = Spool(
        settings.folder / "spool",
        settings.spool_segment_bytes,
        max_bytes=settings.spool_max_bytes,
        min_free_bytes=settings.spool_min_free_bytes,
    )
    if not spool.is_empty():
        _log.info("spool_of_former_run", gatherer=settings.name, size_bytes=spool.bytes_on_disk())
    return spool


def _former_batch_no(settings: GathererSettings) -> int:
    """Return the last batch of the former process, by its heartbeat; 0 where that is missing."""
    heartbeat = read_file(settings.heartbeat_file, GathererStatus)
    return 0 if heartbeat is None or heartbeat.details.writer is None else heartbeat.details.writer.batch_no
