"""One gatherer: everything that Kalshi publishes, into its pair of databases, until it is asked to stop.

Threads, all named after the gatherer: a connection each for the books' shards and one for trades, tickers and
lifecycle; the writer; the catalog; single markets; the minute's books; recovery; the heartbeat. They share a registry
(which markets), the writer's queue (every record) and one stop event. `run` supervises them.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from kalshi_platform.catalog.store import CatalogStore
from kalshi_platform.clock import Clock
from kalshi_platform.errors import AnotherWriter, DatabaseUnavailable, KalshiPlatformError
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.session import Alarm
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer import figures
from kalshi_platform.gatherer.catalog_keeper import CatalogKeeper
from kalshi_platform.gatherer.connections import COMBO_CHANNEL, FEED_CHANNELS, LIFECYCLE_CHANNEL, Connection, shard_of
from kalshi_platform.gatherer.exchange_gate import wait_until_active
from kalshi_platform.gatherer.heartbeat import FILE_NAME, Heartbeat, should_run, write_file, write_row
from kalshi_platform.gatherer.ids import IdSource
from kalshi_platform.gatherer.lock import GathererLock
from kalshi_platform.gatherer.market_fetcher import MarketFetcher
from kalshi_platform.gatherer.poll_log import PollLog
from kalshi_platform.gatherer.registry import Registry
from kalshi_platform.gatherer.reports import BooksPolled, Report
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.snapshot_poller import TOKENS_PER_REQUEST, Recovery, SnapshotPoller
from kalshi_platform.gatherer.spool import Spool
from kalshi_platform.gatherer.writer import Writer
from kalshi_platform.market.records import LifecycleEvent, Record, StreamOpened
from kalshi_platform.storage.migrate import DatabaseKind, check
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database

_STEP_S = 1.0
_REPORT_S = 60.0
_RECOVER_AT_ONCE = 1_000
_GOODBYE_S = 3.0
_ENDING = frozenset({"stopping", "stopped"})
_log = logging.getLogger(__name__)


class GathererService:
    """A gatherer that runs once. `status` may be asked from any thread."""

    def __init__(
        self,
        settings: GathererSettings,
        exchange: ExchangeSettings,
        clock: Clock,
        bounds: PartitionBounds,
        run_id: str | None = None,
        on_report: Callable[[Report], None] | None = None,
    ) -> None:
        """`run_id` names the host's run in heartbeats. `on_report` is called from several threads, must not block."""
        self.settings = settings
        self._exchange = exchange
        self._clock = clock
        self._run_id = run_id
        self._on_report = on_report
        self._started_at = clock.now()
        self._state = "starting"
        self._state_lock = threading.Lock()
        self.switched_off = False
        """Whether it ended, or is about to, because `desired_services` says so."""
        self._note = ""
        # Everything but the writer ends by this event: set by the caller's stop, the off switch or a fatal error.
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._fatal: BaseException | None = None
        self._has_listened = False
        self._timeseries = Database(
            settings.timeseries_url,
            name=f"{settings.name} timeseries",
            pool_size=4,
            statement_timeout_s=settings.statement_timeout_s,
        )
        self._catalog = Database(settings.catalog_url, name=f"{settings.name} catalog", pool_size=3)
        self._poll_log = PollLog(self._timeseries)
        self._ids = IdSource(settings.name, clock)
        self._lock = GathererLock(settings, self._timeseries, clock)
        self._registry = Registry(settings.market_filter, settings.close_grace_s)
        self._wanted: dict[str, int] = {}
        self._rest = RestClient(exchange, clock, self._stop)
        self._store = store = CatalogStore(self._catalog)
        self._keeper = CatalogKeeper(
            settings, self._rest, store, self._registry, clock, self._changed.set, self._report
        )
        self._fetcher = MarketFetcher(
            self._rest, store, self._registry, clock, settings.fetch_attempts, self._changed.set
        )
        self._writer: Writer | None = None
        self._bounds = bounds
        self._recovery = Recovery(settings, self._rest, clock, self._put, self._renew)
        self._poller = SnapshotPoller(
            settings, self._rest, clock, self._put, lambda: self._wanted, self._suspects, self._report
        )
        channels = (*FEED_CHANNELS, COMBO_CHANNEL) if settings.market_filter.include_combos else FEED_CHANNELS
        self._feed = self._connection("feed", channels)
        shards = settings.connections if settings.follow_books else 0
        self._books = [self._connection(f"books-{number}") for number in range(shards)]
        self._threads: list[threading.Thread] = []
        self._figures = figures.Figures(clock)
        self._alarms: Counter[str] = Counter()

    # -- life

    def run(self, stop: threading.Event) -> None:
        """Record until `stop` is set, the off switch is set, or a fatal error; then write what is left and return.

        Raises AnotherWriter, ConfigurationError, SchemaMismatch. Whatever fails for a while is waited for.
        """
        relay = threading.Thread(target=self._relay, args=(stop,), name=f"{self.settings.name} stop", daemon=True)
        self._lock.acquire_folder()
        try:
            relay.start()
            self._check_databases()
            self._take_lease()
            if not self._stop.is_set():
                self._start_writer()
                self._start("heartbeat", self._beat)
                self._start("database watch", self._watch_database)
                if self._still_wanted():
                    self._record()
        finally:
            self._shut_down()
        if self._fatal is not None:
            raise self._fatal

    def status(self) -> dict[str, Any]:
        """Figures for people and machines; the heartbeat's details."""
        writer = self._writer
        return {
            "note": self._note,
            "followed": sum(len(connection.followed()) for connection in self._books),
            "wanted": len(self._wanted),
            "suspects": len(self._suspects()),
            "markets": dict(self._registry.counts()),
            "connections": {each.name: figures.connection(each.counters) for each in (self._feed, *self._books)},
            "writer": None if writer is None else figures.writer(writer),
            "catalog": {
                "last_synced": dict(self._keeper.last_synced),
                "database_error": self._keeper.database_error,
                "fetched": self._fetcher.fetched,
                "not_visible": self._fetcher.not_visible,
                "refused": self._store.refused,
            },
            "books": {"recovered": self._recovery.recovered, **self._figures.polls},
            "alarms": dict(self._alarms),
            "lease": self._lock.has_lease,
        }

    # -- starting

    def _check_databases(self) -> None:
        """Refuse databases that our migrations did not make; one that is away is checked by its first use."""
        pairs: tuple[tuple[Database, DatabaseKind], ...] = (
            (self._timeseries, "timeseries"),
            (self._catalog, "catalog"),
        )
        for database, kind in pairs:
            try:
                check(database, kind)
            except DatabaseUnavailable as error:
                _log.warning("%s: %s; recording goes to the spool until it is back", self.settings.name, error)

    def _take_lease(self) -> None:
        # A server needs a moment to see that a killed predecessor is gone.
        while not self._stop.is_set() and not self._lock.check() and self._lock.is_refused:
            self._clock.wait(self._stop, 0.2)

    def _start_writer(self) -> None:
        spool = Spool(self.settings.folder / "spool", self.settings.spool_segment_bytes)
        if not spool.is_empty():
            _log.info("%s: %d bytes of a former run are in the spool", self.settings.name, spool.bytes_on_disk())
        self._writer = Writer(
            self.settings,
            self._timeseries,
            self._bounds,
            self._clock,
            spool,
            own_sessions=lambda: self._ids.sessions,
            on_lost_claim=self._renew,
            ending=self._stop,
        )
        self._writer.start()

    def _still_wanted(self) -> bool:
        try:
            wanted = should_run(self._timeseries, self.settings.service)
        except DatabaseUnavailable:
            return True
        if not wanted:
            self.switched_off = True
            _log.info("%s is switched off in desired_services", self.settings.service)
        return wanted

    def _record(self) -> None:
        settings = self.settings
        self._say("waiting_for_exchange")
        if not wait_until_active(self._rest, self._clock, self._stop, settings.status_wait_max_s, self._set_note):
            return
        self._say("syncing")
        self._start("markets", lambda: self._fetcher.run(self._stop))
        # Announcements made while the catalog is read must not be missed.
        self._feed.start()
        self._start("catalog", self._run_catalog)
        self._start("recovery", lambda: self._recovery.run(self._stop))
        for connection in self._books:
            connection.start()
        self._start("snapshots", self._run_poller)
        self._supervise()

    def _supervise(self) -> None:
        """Hand the registry's wishes to the connections until the end."""
        while not self._stop.is_set():
            self._changed.clear()
            self._follow_registry()
            self._changed.wait(_STEP_S)

    def _follow_registry(self) -> None:
        now_us = self._clock.now_ns() // 1_000
        if self.settings.follow_books:
            self._wanted = self._registry.wanted(now_us)
        else:
            self._registry.forget(now_us)
        shards: list[dict[str, int]] = [{} for _ in self._books]
        for ticker, exchange_index in self._wanted.items():
            shards[shard_of(ticker, len(shards))][ticker] = exchange_index
        for connection, markets in zip(self._books, shards, strict=True):
            connection.want_books(markets)
        overdue = self._registry.to_confirm(now_us)
        if overdue:
            self._fetcher.ask(overdue)

    # -- threads

    def _connection(self, name: str, channels: Sequence[str] = ()) -> Connection:
        return Connection(
            name,
            self.settings,
            self._exchange,
            self._clock,
            self._ids,
            self._stop,
            self._put_feed if channels else self._put_books,
            self._alarmed,
            channels,
        )

    def _start(self, name: str, act: Callable[[], None]) -> None:
        def guarded() -> None:
            while not self._stop.is_set():
                try:
                    act()
                except KalshiPlatformError as error:
                    if not self._stop.is_set():
                        _log.warning("%s: thread %s: %s", self.settings.name, name, error)
                except Exception:  # noqa: BLE001 - no fault of one thread may silently end its work
                    _log.exception("%s: thread %s failed; it begins anew", self.settings.name, name)
                else:
                    return
                self._clock.wait(self._stop, 1.0)

        thread = threading.Thread(target=guarded, name=f"{self.settings.name} {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _relay(self, stop: threading.Event) -> None:
        while not self._stop.is_set():
            if stop.wait(0.25):
                self._end(None)

    def _run_catalog(self) -> None:
        self._keeper.load(self._stop)
        self._say("running")
        self._keeper.run(self._stop)

    def _run_poller(self) -> None:
        share = self._exchange.rest_share
        self._poller.refill_per_s = self._exchange.reads_per_second * TOKENS_PER_REQUEST * share
        try:
            self._poller.refill_per_s = self._rest.account_limits().read_refill_per_s * share
            self._rest.endpoint_costs()
        except KalshiPlatformError as error:
            _log.warning("%s: the read budget is unknown (%s); assuming what is configured", self.settings.name, error)
        if self.settings.follow_books:
            self._poller.run(self._stop)

    def _beat(self) -> None:
        """The heartbeat's file, and a report each minute; no database can hold these up."""
        report_at = self._clock.monotonic() + _REPORT_S
        while not self._stop.is_set():
            self._write_file(self._heartbeat())
            if self._clock.monotonic() >= report_at:
                report_at += _REPORT_S
                self._report(self._figures.streams(self._writer, (self._feed, *self._books)))
            self._clock.wait(self._stop, self.settings.heartbeat_interval_s)

    def _watch_database(self) -> None:
        """The heartbeat's row, the lease and the off switch."""
        while not self._stop.is_set():
            try:
                self._lock.check()
                if not self._lock.is_refused:  # else the row is the other one's
                    write_row(self._timeseries, self._heartbeat())
                self._poll_log.write()
                if not self._still_wanted():
                    self._end(None)
            except DatabaseUnavailable as error:
                _log.debug("%s: %s", self.settings.name, error)
            except AnotherWriter as error:
                self._end(error)
            self._clock.wait(self._stop, self.settings.heartbeat_interval_s)

    # -- ending

    def _end(self, fatal: BaseException | None) -> None:
        if fatal is not None and self._fatal is None:
            self._fatal = fatal
        self._stop.set()
        self._changed.set()

    def _shut_down(self) -> None:
        """Close sessions, write what is left, say goodbye, give the name back."""
        self._end(None)
        self._say("stopping")
        # One deadline for all: a database that gives no answer may hold up several of them.
        deadline = self._clock.monotonic() + self.settings.stop_timeout_s
        joins = [each.join for each in (self._feed, *self._books)] + [thread.join for thread in self._threads]
        for join in joins:
            join(max(0.0, deadline - self._clock.monotonic()))
        if self._writer is not None:
            everything = self._writer.stop(self.settings.stop_timeout_s)
            _log.info(
                "%s: stopped; %s", self.settings.name, "everything is written" if everything else "the rest is spooled"
            )
            self._report(self._figures.streams(self._writer, (self._feed, *self._books)))
            self._say("stopped")
            self._write_file(self._heartbeat())
            self._briefly("goodbye", self._say_goodbye)
        self._briefly("release", self._lock.release)
        self._timeseries.dispose()
        self._catalog.dispose()

    def _briefly(self, name: str, act: Callable[[], None]) -> None:
        """Do something with a database that may give no answer at all: it is left alone then."""
        thread = threading.Thread(target=act, name=f"{self.settings.name} {name}", daemon=True)
        thread.start()
        thread.join(_GOODBYE_S)
        if thread.is_alive():
            _log.warning("%s: %s: the database gives no answer", self.settings.name, name)

    def _say_goodbye(self) -> None:
        if isinstance(self._fatal, AnotherWriter) or self._lock.is_refused:
            return  # the row is the other one's now
        try:
            write_row(self._timeseries, self._heartbeat())
            self._poll_log.write()
        except DatabaseUnavailable as error:
            _log.warning("%s: no last heartbeat row: %s", self.settings.name, error)

    # -- what threads share

    def _put(self, records: Sequence[Record]) -> None:
        assert self._writer is not None  # noqa: S101 - threads that put start after it
        self._writer.put(records)

    def _put_books(self, records: Sequence[Record]) -> None:
        self._poller.saw(records)
        self._put(records)

    def _put_feed(self, records: Sequence[Record]) -> None:
        self._put(records)
        for record in records:
            if type(record) is LifecycleEvent:
                self._fetcher.heard(record)
            elif type(record) is StreamOpened and record.channel == LIFECYCLE_CHANNEL:
                self._listening()

    def _listening(self) -> None:
        """Lifecycle announcements come (again): those of the time between are not repeated, so REST is asked."""
        if self._has_listened:
            self._keeper.hurry()
        self._has_listened = True

    def _alarmed(self, connection: Connection, alarm: Alarm) -> None:
        _log.warning("%s %s: %s: %s", self.settings.name, connection.name, alarm.kind, alarm.detail)
        self._alarms[alarm.kind] += 1
        if alarm.kind in ("snapshot_unanswered", "error") and alarm.tickers:
            tickers = [ticker for ticker in alarm.tickers if ticker in self._wanted]
            self._recovery.ask(tickers)
            # Markets that are over stay mute without a word: ask whether these are.
            self._fetcher.ask(tickers[:_RECOVER_AT_ONCE])

    def _renew(self, tickers: Sequence[str]) -> None:
        if not self._books:
            return
        for ticker in tickers:
            self._books[shard_of(ticker, len(self._books))].renew([ticker])

    def _suspects(self) -> frozenset[str]:
        return frozenset().union(*(connection.suspects() for connection in self._books))

    def _report(self, report: Report) -> None:
        self._figures.note(report)
        if isinstance(report, BooksPolled):
            self._poll_log.note(report)
        if self._on_report is not None:
            try:
                self._on_report(report)
            except Exception:  # noqa: BLE001 - the host's trouble is not ours
                _log.warning("%s: a report could not be delivered", self.settings.name, exc_info=True)

    def _say(self, state: str) -> None:
        with self._state_lock:
            # A thread that has just finished something must not speak after the end has begun.
            if state == self._state or (self._stop.is_set() and state not in _ENDING):
                return
            _log.info("%s: %s", self.settings.name, state.replace("_", " "))
            self._state = state
            self._note = ""

    def _set_note(self, note: str) -> None:
        self._note = note

    def _heartbeat(self) -> Heartbeat:
        state = self._state
        if self._writer is not None and self._writer.is_stalled and state not in _ENDING:
            state = "stalled"
        return Heartbeat(
            service=self.settings.service,
            at=self._clock.now(),
            started_at=self._started_at,
            state=state,
            run_id=self._run_id,
            details=self.status(),
        )

    def _write_file(self, beat: Heartbeat) -> None:
        try:
            write_file(self.settings.folder / FILE_NAME, beat)
        except OSError as error:
            _log.warning("%s: the heartbeat file cannot be written: %s", self.settings.name, error)
