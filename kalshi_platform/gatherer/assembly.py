"""The parts of one gatherer and how they are wired; nothing here runs yet."""

from __future__ import annotations

import functools
import logging
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
from kalshi_platform.gatherer.capture.connection_pool import FEED, ConnectionPool
from kalshi_platform.gatherer.capture.connection_slot import ConnectionSlot
from kalshi_platform.gatherer.capture.connections import COMBO_CHANNEL, FEED_CHANNELS, Connection
from kalshi_platform.gatherer.capture.snapshot_poller import Recovery, SnapshotPoller
from kalshi_platform.gatherer.ids import IdSource
from kalshi_platform.gatherer.ingest.fence import Fence
from kalshi_platform.gatherer.ingest.open_transactions import OpenTransactions
from kalshi_platform.gatherer.ingest.writer import Writer
from kalshi_platform.gatherer.journal.spool import Spool
from kalshi_platform.gatherer.lock import GathererLock
from kalshi_platform.gatherer.markets.catalog_sync_loop import CatalogSyncLoop
from kalshi_platform.gatherer.markets.market_refresher import MarketRefresher
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.gatherer.routing import Router
from kalshi_platform.gatherer.schema_checks import DatabaseChecks
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.channel_counters import ChannelCounters
from kalshi_platform.gatherer.status.clock_skew import ClockSkewMonitor
from kalshi_platform.gatherer.status.reports import Report
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.monitoring.heartbeat import read_file
from kalshi_platform.monitoring.process_usage import process_usage
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a gatherer consists of. `stop` ends all of it but the writer."""

    settings: GathererSettings
    exchange: ExchangeSettings
    clock: Clock
    bounds: PartitionBounds
    stop: threading.Event
    timeseries: Database
    catalog: Database
    lock: GathererLock
    ids: IdSource
    registry: Registry
    rest: RestClient
    store: CatalogStore
    keeper: CatalogSyncLoop
    fetcher: MarketRefresher
    recovery: Recovery
    poller: SnapshotPoller
    fleet: ConnectionPool
    router: Router
    checks: DatabaseChecks
    clock_skew: ClockSkewMonitor
    open_transactions: OpenTransactions
    channels: Mapping[str, ChannelCounters]
    """What came, by the name of the connection."""

    @property
    def connections(self) -> tuple[ConnectionSlot, ...]:
        """The places of all connections: the feed's, then those of the books."""
        return self.fleet.slots

    def status(self) -> GathererStatus:
        """Return what every part reports as of now."""
        router, writer, now_s = self.router, self.router.writer, self.clock.monotonic()
        return GathererStatus(
            followed_markets=router.followed(),
            desired_markets=len(router.wanted),
            suspect_markets=len(router.out_of_sync()),
            markets=dict(self.registry.counts()),
            channels=ChannelCounters.sum(tuple(self.channels.values()), now_s),
            connections={slot.name: slot.status(self.channels[slot.name]) for slot in self.connections},
            connection_pool=self.fleet.counters,
            ledger=None if writer is None else writer.ledger_status(),
            writer=None if writer is None else writer.status(),
            catalog=msgspec.structs.replace(
                self.keeper.status(), fetched=self.fetcher.fetched, not_visible=self.fetcher.not_visible
            ),
            poller=msgspec.structs.replace(self.poller.status(), recovered=self.recovery.recovered),
            clock=self.clock_skew.status(),
            alarms=dict(router.alarms),
            problems=[*self.checks.problems(), *self.clock_skew.problems(), *self.open_transactions.problems()],
            has_database_lock=self.lock.has_lease,
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
    report: Callable[[Report], None],
) -> Parts:
    """Make and wire all parts but the writer; no thread is started and no connection opened."""
    timeseries = Database(
        settings.timeseries_url,
        name=f"{settings.name} timeseries",
        pool_size=4,
        statement_timeout_s=settings.statement_timeout_s,
    )
    catalog = Database(settings.catalog_url, name=f"{settings.name} catalog", pool_size=3)
    ids = IdSource(settings.name, clock)
    registry = Registry(settings.market_filter, settings.close_grace_s)
    rest = RestClient(exchange, clock, stop)
    router = Router(settings, registry, clock, rest.clock_offset)
    store = CatalogStore(catalog, rest.clock_offset)
    keeper = CatalogSyncLoop(settings, rest, store, registry, clock, router.changed.set, report)
    fetcher = MarketRefresher(rest, store, registry, clock, settings.fetch_attempts, router.changed.set)
    recovery = Recovery(settings, rest, clock, router.put_when_room, router.resubscribe_missing)
    poller = SnapshotPoller(
        settings, rest, clock, router.put_when_room, lambda: router.wanted, router.out_of_sync, report
    )

    turns = ConnectThrottle(settings.reconnect_spacing_s, random.random)
    counters: dict[str, ChannelCounters] = {}

    def connection(name: str) -> Connection:
        put, channels = (router.put_feed, feed_channels) if name == FEED else (router.put_books, ())
        counted = functools.partial(put, counters.setdefault(name, ChannelCounters()))
        return Connection(
            name, settings, exchange, clock, ids, stop, counted, router.alarmed, channels, turns, router.may_receive
        )

    feed_channels = (*FEED_CHANNELS, COMBO_CHANNEL) if settings.market_filter.include_combos else FEED_CHANNELS
    fleet = ConnectionPool(settings, clock, connection)
    parts = Parts(
        settings=settings,
        exchange=exchange,
        clock=clock,
        bounds=bounds,
        stop=stop,
        timeseries=timeseries,
        catalog=catalog,
        lock=GathererLock(settings, timeseries, clock),
        ids=ids,
        registry=registry,
        rest=rest,
        store=store,
        keeper=keeper,
        fetcher=fetcher,
        recovery=recovery,
        poller=poller,
        fleet=fleet,
        router=router,
        checks=DatabaseChecks(settings, timeseries, catalog, router.count_alarm),
        clock_skew=ClockSkewMonitor(settings.name, timeseries, clock, rest.clock_offset, router.count_alarm),
        open_transactions=OpenTransactions(settings.name, timeseries, clock, router.count_alarm),
        channels=counters,
    )
    router.keeper, router.fetcher, router.recovery, router.poller = keeper, fetcher, recovery, poller
    router.fleet = fleet
    return parts


def start_writer(parts: Parts) -> Writer:
    """Open the spool and start the writer; the gatherer's folder must be locked. The router then has it."""
    settings = parts.settings
    spool = Spool(
        settings.folder / "spool",
        settings.spool_segment_bytes,
        max_bytes=settings.spool_max_bytes,
        min_free_bytes=settings.spool_min_free_bytes,
    )
    if not spool.is_empty():
        _log.info("%s: %d bytes of a former run are in the spool", settings.name, spool.bytes_on_disk())
    former = read_file(settings.heartbeat_file, GathererStatus)
    former_batch_no = 0 if former is None or former.details.writer is None else former.details.writer.batch_no
    writer = Writer(
        settings,
        parts.timeseries,
        parts.bounds,
        parts.clock,
        spool,
        own_sessions=lambda: parts.ids.sessions,
        on_lost_claim=parts.router.resubscribe,
        on_lost_sessions=parts.router.reconnect,
        ending=parts.stop,
        fence=Fence(parts.lock.owner, parts.lock.disowned, parts.router.reconnect, former_batch_no),
        on_alarm=parts.router.count_alarm,
    )
    parts.router.writer = writer
    writer.start()
    return writer
