"""Runs one gatherer, which records everything that Kalshi publishes into its pair of databases, until it is stopped.

Threads, all named after the gatherer: a connection each for the books' shards and one for trades, tickers and
lifecycle; the ingest; the journal's sync; the catalog; single markets; the minute's books; recovery; the heartbeat;
the database watch. They share a registry (the markets), the journal (the frames) and one stop event. This module starts
and ends them; `assembly` makes the parts, `routing` moves data between them, `status` reports on them.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Sequence

from kalshi_platform.clock import Clock
from kalshi_platform.errors import AnotherWriter, DatabaseUnavailable, JournalUnwritable, KalshiPlatformError
from kalshi_platform.exchange.budget import REQUEST_TOKENS
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.assembly import Parts, assemble
from kalshi_platform.gatherer.capture.snapshot_poller import PollBudget, cost_of_books
from kalshi_platform.gatherer.lock import GathererLock
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.report_publisher import ReportPublisher
from kalshi_platform.gatherer.status.reports import Report, make_status_report
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.gatherer.status.status_reporter import StatusReporter
from kalshi_platform.gatherer.threads import WAIT_REPORT_S, ThreadGroup
from kalshi_platform.gatherer.wait_for_exchange import wait_until_active
from kalshi_platform.monitoring.alerts.health_watch import HealthWatch
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import is_enabled, write_heartbeat

_SWITCH_INTERVAL_S = 0.02
"""How long a thread that computes may keep the interpreter's lock while others wait for it.

At full speed connections and ingest take it from each other every 5 ms, Python's default, and a quarter of the time
goes there; at 2,000 messages a second no thread computes for so long.
"""
_LAST_ROW_S = 3.0
_ALERTS_CLOSE_S = 2.0
_log = event_logger(__name__)


class GathererService:
    """Runs a gatherer once; `status` may be called from any thread."""

    def __init__(
        self,
        settings: GathererSettings,
        exchange: ExchangeSettings,
        clock: Clock,
        bounds: PartitionBounds,
        run_id: str | None = None,
        on_report: Callable[[Report], None] | None = None,
    ) -> None:
        """Set up the service.

        `run_id` names the host's run in heartbeats. `on_report` is called from several threads and must not block.
        """
        self.settings = settings
        self.switched_off = False
        """Whether it ended because its switch is off in `service_switches`."""
        self._exchange = exchange
        self._clock = clock
        self._bounds = bounds
        self._run_id = run_id
        self._on_report = on_report
        self._recording: Recording | None = None

    @property
    def is_assembled(self) -> bool:
        """Return whether its folder is locked and its parts are made."""
        return self._recording is not None

    @property
    def parts(self) -> Parts:
        """Return the parts of an assembled gatherer."""
        assert self._recording is not None  # noqa: S101 - a mistake of the caller
        return self._recording.parts

    def status(self) -> GathererStatus:
        """Return the status as of now."""
        recording = self._recording
        return GathererStatus(state="starting") if recording is None else recording.reporter.status()

    def run(self, stop: threading.Event) -> None:
        """Record until `stop`, the off switch or a fatal error; then commit the rest of the journal and return.

        Raises AnotherWriter, ConfigurationError, SchemaMismatch. Transient failures are waited for.
        """
        settings, clock = self.settings, self._clock
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        timeseries = Database(
            settings.timeseries_url,
            name=f"{settings.name} timeseries",
            pool_size=4,
            statement_timeout_s=settings.statement_timeout_s,
        )
        lock = GathererLock(settings, timeseries, clock)
        lock.acquire_folder()
        try:
            # Everything but the ingest ends by this event: set by the caller's stop, the off switch or a fatal error.
            ending = threading.Event()
            reports = ReportPublisher(settings.name, self._on_report)
            parts = assemble(settings, self._exchange, clock, self._bounds, ending, timeseries, lock, reports.publish)
            recording = self._recording = Recording(parts, ending, reports, self._run_id)
        except BaseException:
            lock.release()
            timeseries.dispose()
            raise
        try:
            recording.run(stop)
        finally:
            self.switched_off = recording.switched_off


class Recording:
    """Runs a gatherer whose folder is locked, from its first thread to its last heartbeat."""

    def __init__(self, parts: Parts, ending: threading.Event, reports: ReportPublisher, run_id: str | None) -> None:
        settings, clock = parts.settings, parts.clock
        self.parts = parts
        self.reporter = StatusReporter(settings, clock, ending, parts, reports, run_id, self._on_beat)
        self.switched_off = False
        self._settings = settings
        self._clock = clock
        self._stop = ending
        self._reports = reports
        self._threads = ThreadGroup(settings.name, clock, ending)
        self._health_watch = HealthWatch()
        self._fatal: BaseException | None = None

    def run(self, stop: threading.Event) -> None:
        """Record until the end; see `GathererService.run`."""
        relay = threading.Thread(target=self._relay, args=(stop,), name=f"{self._settings.name} stop", daemon=True)
        try:
            relay.start()
            self.parts.alerts.start()
            self.parts.checks.check_at_startup()
            self._acquire_database_lock()
            if not self._stop.is_set():
                self.parts.ingest.start()
                self._threads.start("heartbeat", self.reporter.run)
                self._threads.start("database watch", self._watch_database)
                self._threads.start("journal sync", self._sync_journal)
                self._threads.start("journal housekeeping", lambda: self.parts.housekeeping.run(self._stop))
                self._threads.start("wire shapes", lambda: self.parts.wire_shapes.run(self._stop))
                if self._is_enabled():
                    self._record()
        finally:
            self._shut_down()
        if self._fatal is not None:
            raise self._fatal

    # -- starting

    def _acquire_database_lock(self) -> None:
        # A server needs a moment to notice that a killed predecessor is gone.
        lock = self.parts.lock
        while not self._stop.is_set() and not lock.check() and lock.is_refused:
            self._clock.wait(self._stop, 0.2)

    def _record(self) -> None:
        settings, parts, reporter, start = self._settings, self.parts, self.reporter, self._threads.start
        reporter.set_state("waiting_for_exchange")
        if not wait_until_active(
            parts.rest,
            self._clock,
            self._stop,
            settings.status_wait_max_s,
            reporter.set_note,
            lambda status: self._reports.publish(make_status_report(self._clock.now(), status)),
            parts.rest.clock_offset,
        ):
            return
        reporter.set_state("syncing")
        start("markets", lambda: parts.refresher.run(self._stop))
        # Announcements made while the catalog is read must not be missed.
        parts.pool.start_feed()
        start("catalog", self._run_catalog)
        start("recovery", lambda: parts.recovery.run(self._stop))
        parts.pool.start_books()
        start("snapshots", self._run_poller)
        self._threads.run_restarting("markets followed", lambda: parts.follower.run(self._stop))

    # -- threads

    def _relay(self, stop: threading.Event) -> None:
        while not self._stop.is_set():
            if stop.wait(0.25):
                self._end(None)

    def _run_catalog(self) -> None:
        self.parts.sync_loop.load(self._stop)
        self.reporter.set_state("running")
        self.parts.sync_loop.run(self._stop)

    def _run_poller(self) -> None:
        # Read in any case: the REST client of the process paces all its requests by it.
        budget = self._read_budget()
        if self._settings.follow_books:
            self.parts.poller.run(self._stop, budget)

    def _read_budget(self) -> PollBudget:
        """Return this process's part of the account's budget, or of the configured one without an answer."""
        exchange, rest = self.parts.exchange, self.parts.rest
        refill_per_s = exchange.reads_per_second * REQUEST_TOKENS * exchange.rest_share
        try:
            refill_per_s = rest.account_limits().read_refill_per_s * exchange.rest_share
            return PollBudget(refill_per_s, cost_of_books(rest.endpoint_costs()))
        except KalshiPlatformError as error:
            _log.warning(
                "read_budget_unknown",
                gatherer=self._settings.name,
                error=error,
                consequence="assuming what is configured",
            )
            return PollBudget(refill_per_s)

    def _on_beat(self) -> None:
        """Compare clocks, and send an alert when it has not recorded what it should for long."""
        self.parts.clock_skew.check_exchange()
        status = self.reporter.status()
        # The exchange says that it is closed: nothing is wrong.
        reasons = [] if status.state == "waiting_for_exchange" else status.reasons
        for kind, text in self._health_watch.update(reasons, status.troubles, self._clock.monotonic()):
            self.parts.alerts.send(kind, self._settings.service, text)

    def _watch_database(self) -> None:
        """Write the heartbeat's row, keep the lock, read the off switch, and run the checks of the database."""
        parts = self.parts
        while not self._stop.is_set():
            try:
                parts.checks.recheck()
                parts.lock.check()
                if not parts.lock.is_refused:  # else the row is the other process's
                    self._write_row()
                parts.clock_skew.check_database()
                parts.open_transactions.check()
                if not self._is_enabled():
                    self._end(None)
            except DatabaseUnavailable as error:
                _log.debug("database_not_watched", gatherer=self._settings.name, error=error)
            except AnotherWriter as error:
                self._end(error)
            self._clock.wait(self._stop, self._settings.heartbeat_interval_s)

    def _write_row(self) -> None:
        """Write the heartbeat's row and the reports of polls. Raises DatabaseUnavailable."""
        write_heartbeat(self.parts.timeseries, self.reporter.heartbeat())
        self._reports.write_polls(self.parts.timeseries)

    def _sync_journal(self) -> None:
        """Make what was received survive a power cut, every second; while the database is behind, more often."""
        parts, settings = self.parts, self._settings
        while not self._stop.is_set():
            is_behind = parts.ingest.failures or parts.ingest.is_lagging
            self._clock.wait(self._stop, settings.flush_interval_s if is_behind else settings.journal_sync_interval_s)
            with contextlib.suppress(JournalUnwritable):  # which the status says
                parts.journal.sync()

    def _is_enabled(self) -> bool:
        """Return whether the switch is on, or cannot be read."""
        try:
            enabled = is_enabled(self.parts.timeseries, self._settings.service)
        except DatabaseUnavailable:
            return True
        if not enabled:
            self.switched_off = True
            _log.info("switched_off", service=self._settings.service, table="service_switches")
        return enabled

    # -- ending

    def _end(self, fatal: BaseException | None) -> None:
        if fatal is not None and self._fatal is None:
            self._fatal = fatal
        self._stop.set()
        self.parts.requests.changed.set()

    def _shut_down(self) -> None:
        """Close sessions, commit the rest of the journal, write the last heartbeat, release the name."""
        self._end(None)
        parts, reporter, settings = self.parts, self.reporter, self._settings
        reporter.set_state("stopping")
        self._wait_for_threads(
            [(f"connection {each.name}", each.join) for each in parts.pool.slots] + self._threads.joins()
        )
        was_started = parts.ingest.was_started
        parts.journal.close()
        everything = parts.ingest.stop(settings.stop_timeout_s, self._report_wait)
        if was_started:
            _log.info("gatherer_stopped", gatherer=settings.name, everything_written=everything)
            reporter.publish_streams()
            reporter.set_state("stopped")
            reporter.write_file()
            self._threads.run_with_timeout("goodbye", self._write_last_row, _LAST_ROW_S)
        reporter.close()
        parts.alerts.close(_ALERTS_CLOSE_S)
        self._threads.run_with_timeout("release", parts.lock.release, _LAST_ROW_S)
        parts.dispose()

    def _wait_for_threads(self, joins: Sequence[tuple[str, Callable[[float], bool]]]) -> None:
        """Wait for the threads that may still append to the journal, and report which ones.

        They share one deadline: a database that does not answer may delay several of them.
        """
        now = self._clock.monotonic()
        deadline, report_at = now + self._settings.stop_timeout_s, now + WAIT_REPORT_S
        left = []
        for what, join in joins:
            while not join(max(0.0, min(report_at, deadline) - now)):
                now = self._clock.monotonic()
                if now >= deadline:
                    left.append(what)
                    break
                if now >= report_at:
                    self._report_wait(what)
                    report_at = now + WAIT_REPORT_S
            now = self._clock.monotonic()
        if left:
            _log.warning("stop_not_awaited", gatherer=self._settings.name, waits_for=left)

    def _report_wait(self, what: str) -> None:
        _log.info("stop_awaited", gatherer=self._settings.name, waits_for=what)
        self.reporter.set_note(f"waits for {what}")
        self.reporter.write_file()

    def _write_last_row(self) -> None:
        if isinstance(self._fatal, AnotherWriter) or self.parts.lock.is_refused:
            return  # the row is the other process's now
        try:
            self._write_row()
        except DatabaseUnavailable as error:
            _log.warning("last_heartbeat_row_not_written", gatherer=self._settings.name, error=error)
