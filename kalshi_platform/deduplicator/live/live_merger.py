"""The live merge: pass after pass, one deduplicator at a time."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import msgspec

from kalshi_platform.backoff import exponential, jittered
from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog
from kalshi_platform.deduplicator.live.status import (
    SERVICE,
    CatalogMergeStatus,
    DeduplicatorStatus,
    LastPass,
    SourceStatus,
    TableCounts,
    merge_metrics,
    with_health,
)
from kalshi_platform.deduplicator.merge.merge_pass import Merger, MergeReport
from kalshi_platform.deduplicator.merge.source_identity import refuse_shared_databases
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.errors import ConfigurationError, DatabaseUnavailable, KalshiPlatformError
from kalshi_platform.monitoring.alerts.health_watch import HealthWatch
from kalshi_platform.monitoring.alerts.sender import AlertSender
from kalshi_platform.monitoring.endpoint import Endpoint, health_of
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.heartbeat import Heartbeat
from kalshi_platform.monitoring.shortfall import LastMinute
from kalshi_platform.storage.alert_store import open_alert_sender
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import AdvisoryLock, Database
from kalshi_platform.storage.services import read_switch, write_heartbeat
from kalshi_platform.storage.sqlstate import LOGIN_REFUSED

# The next merge of catalogs that grow: soon, but never more than a twentieth of the time goes into it.
_CATALOG_SOON_S = 5.0
_CATALOG_REST = 20.0
_ALERTS_POLL_S = 5.0
_ALERTS_CLOSE_S = 5.0
_CATALOGS_OLD = "series, events and markets of production stay as they were; the next attempt follows"
_log = event_logger(__name__)


class LiveMerger:
    """Merges every `interval_s` (at once while behind) for as long as it holds the lock on production.

    A second one waits for the lock. Production being away is survived with jittered backoff. `on_report` is called
    after every pass; what it raises is logged and never stops the merge.
    """

    def __init__(
        self,
        settings: DeduplicatorSettings,
        clock: Clock,
        bounds: PartitionBounds,
        run_id: str | None = None,
        on_report: Callable[[MergeReport], None] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._bounds = bounds
        self._run_id = run_id
        self._on_report = on_report
        self._lock = threading.Lock()
        self._state = "starting"
        self._since = clock.now()
        self._passes = 0
        self._totals: dict[str, TableCounts] = {}
        self._last: MergeReport | None = None
        self._error: str | None = None
        self._failures = 0
        self._catalog: CatalogMergeStatus | None = None
        """Replaced, never changed."""
        # Gatherer → its cursor, and the monotonic time since which it has stood there although there was more.
        self._standing: dict[str, tuple[int, float]] = {}
        self._quarantined = 0
        self._dead_letters = LastMinute()
        self._health_watch = HealthWatch()
        self._alerts: AlertSender | None = None
        self._endpoint = Endpoint(
            settings.endpoint, SERVICE, lambda: merge_metrics(self.status()), lambda: health_of(SERVICE, self.status())
        )

    def run(self, stop: threading.Event) -> None:
        """Merge until `stop` is set or the service is switched off in `service_switches`.

        Raises SchemaMismatch when production is not what this version writes, ConfigurationError when two gatherers
        have one database, or production's server refuses the login at the start.
        """
        refuse_shared_databases(self._settings.sources, self._clock)
        merger = Merger(self._settings, self._clock, self._bounds)
        alerts = self._alerts = open_alert_sender(
            self._settings.alerts, merger.production, self._clock, SERVICE, poll_s=_ALERTS_POLL_S
        )
        try:
            _refuse_wrong_login(merger)
            alerts.start()
            while not stop.is_set():
                self._endpoint.ensure()
                try:
                    merger.check_production()
                    if self._is_switched_off(merger):
                        return
                    with merger.production.advisory_lock(SERVICE) as lock:
                        if lock is None:
                            self._set_state(
                                "waiting", "another deduplicator holds the lock on production; waiting for it"
                            )
                            self._pause(stop, self._settings.interval_s)
                        else:
                            self._merge_while_locked(merger, lock, stop)
                except DatabaseUnavailable as error:
                    self._back_off(stop, error)
        finally:
            self._endpoint.close()
            alerts.close(_ALERTS_CLOSE_S)
            merger.dispose()

    def status(self) -> DeduplicatorStatus:
        """Return everything that is known as of now."""
        with self._lock:
            status = DeduplicatorStatus(
                state=self._state,
                passes=self._passes,
                tables={name: msgspec.structs.replace(counts) for name, counts in self._totals.items()},
                since=self._since,
                error=self._error,
                catalog=self._catalog,
                alerts_waiting=0 if self._alerts is None else self._alerts.waiting,
                problems=[] if self._alerts is None else self._alerts.problems(),
            )
            last = self._last
            if last is not None:
                seconds = max((last.finished_at - last.started_at).total_seconds(), 1e-6)
                status.last_pass = LastPass(
                    at=last.finished_at,
                    seconds=round(seconds, 4),
                    rows_read=last.rows_read,
                    rows_inserted=last.rows_inserted,
                    rows_read_per_s=round(last.rows_read / seconds),
                )
                status.behind = last.behind
                status.missed = list(last.missed)
                status.put_aside = self._quarantined
                status.alarms = [f"{each.kind}: {each.subject}: {each.detail}" for each in last.alarms]
                status.dead_letters_last_minute = self._dead_letters.growth
                status.gatherers = {
                    source.name: SourceStatus(
                        batch_no=source.cursor,
                        rows=source.rows,
                        behind=source.behind,
                        standing_s=self._standing_s(source.name),
                        error=source.error,
                        lag_ms=None if source.lag_s is None else round(source.lag_s * 1_000),
                    )
                    for source in last.sources
                }
        return with_health(status)

    def _merge_while_locked(self, merger: Merger, lock: AdvisoryLock, stop: threading.Event) -> None:
        """Merge while the lock is ours."""
        self._set_state("running", "the live merge runs")
        heartbeat = _HeartbeatWriter(
            merger.production, self._clock, self._settings.heartbeat_interval_s, self.status, self._run_id
        )
        heartbeat.start()
        ended = threading.Event()
        catalogs = threading.Thread(target=self._merge_catalogs, args=(ended,), name="catalogs", daemon=True)
        catalogs.start()
        try:
            while not stop.is_set():
                started = self._clock.monotonic()
                if not lock.is_held():
                    self._set_state("waiting", "the lock on production was lost")
                    return
                if self._is_switched_off(merger):
                    return
                self._endpoint.ensure()
                report = merger.merge_new()
                self._record_report(report)
                self._watch_health()
                self._notify(report)
                if not report.behind:
                    self._pause(stop, self._settings.interval_s - (self._clock.monotonic() - started))
            self._set_state("stopped", "the live merge stops as requested")
        finally:
            ended.set()
            catalogs.join(timeout=10)
            heartbeat.stop()

    def _merge_catalogs(self, ended: threading.Event) -> None:
        """Merge the catalogs now and then, beside the merge of the rows, which does not wait for it.

        Soon again while they grow (gatherers that have just started read theirs page by page), ever more rarely after.
        """
        quiet = 0
        while True:
            pause_s = self._settings.catalog_interval_s
            try:
                report = merge_catalog(self._settings, self._clock)
            except KalshiPlatformError as error:
                _log.warning("catalogs_not_merged", error=error, consequence=_CATALOGS_OLD)
                self._catalog_failed(str(error))
            except Exception as error:  # noqa: BLE001 - the thread must outlive unforeseen errors
                _log.exception("catalogs_not_merged", consequence=_CATALOGS_OLD)
                self._catalog_failed(f"{type(error).__name__}: {error}")
            else:
                with self._lock:
                    self._catalog = CatalogMergeStatus(
                        at=report.finished_at, rows_changed=report.rows_changed, missed=list(report.missed)
                    )
                is_growing = report.rows_changed > 0 or report.missed or report.is_empty
                quiet = 0 if is_growing else quiet + 1
                took_s = (report.finished_at - report.started_at).total_seconds()
                pause_s = exponential(max(_CATALOG_SOON_S, _CATALOG_REST * took_s), pause_s, quiet)
            if self._clock.wait(ended, pause_s):
                return

    def _catalog_failed(self, error: str) -> None:
        with self._lock:
            before = self._catalog or CatalogMergeStatus()
            self._catalog = msgspec.structs.replace(before, error=error, error_at=self._clock.now())

    def _is_switched_off(self, merger: Merger) -> bool:
        switch = read_switch(merger.production, SERVICE)
        reason = None if switch.enabled else switch.reason or "no reason given"
        if reason is not None:
            self._set_state("stopped", f"switched off in service_switches ({reason}); stopping")
        return reason is not None

    def _record_report(self, report: MergeReport) -> None:
        with self._lock:
            self._last = report
            self._passes += 1
            self._failures = 0
            self._error = None
            now_s = self._clock.monotonic()
            self._quarantined += report.quarantined
            self._dead_letters.update(self._quarantined, now_s)
            for source in report.sources:
                stands = self._standing.get(source.name)
                if not source.behind:
                    self._standing.pop(source.name, None)
                elif stands is None or stands[0] != source.cursor:
                    self._standing[source.name] = (source.cursor, now_s)
            for name, counts in report.tables.items():
                total = self._totals.setdefault(name, TableCounts())
                total.read += counts.read
                total.inserted += counts.inserted

    def _standing_s(self, name: str) -> float | None:
        stands = self._standing.get(name)
        return None if stands is None else round(self._clock.monotonic() - stands[1], 1)

    def _notify(self, report: MergeReport) -> None:
        if self._on_report is None:
            return
        try:
            self._on_report(report)
        except Exception:  # noqa: BLE001 - a listener must not be able to stop the merge
            _log.exception("merge_report_not_delivered", consequence="the merge goes on")

    def _back_off(self, stop: threading.Event, error: DatabaseUnavailable) -> None:
        with self._lock:
            self._failures += 1
            self._error = str(error)
            longest_s = exponential(0.5, self._settings.retry_max_s, self._failures)
        self._set_state("production away", str(error))
        self._watch_health()
        # Jitter only spreads several processes; nothing secret depends on it.
        self._pause(stop, jittered(longest_s, random.random))

    def _watch_health(self) -> None:
        """Send an alert of what is wrong for long; alarms are alerts by themselves."""
        status = self.status()
        troubles = [each for each in status.troubles if each not in status.alarms]
        for kind, text in self._health_watch.update(status.reasons, troubles, self._clock.monotonic()):
            if self._alerts is not None:
                self._alerts.send(kind, SERVICE, text)

    def _pause(self, stop: threading.Event, seconds: float) -> None:
        if seconds > 0:
            self._clock.wait(stop, seconds)

    def _set_state(self, state: str, message: str) -> None:
        with self._lock:
            changed = self._state != state
            self._state = state
        if changed:
            _log.info("live_merge_state_changed", state=state, detail=message)


def _refuse_wrong_login(merger: Merger) -> None:
    """At a start a refused login is a wrong setting, later an outage like any other."""
    try:
        merger.check_production()
    except DatabaseUnavailable as error:
        if error.kind in LOGIN_REFUSED:
            raise ConfigurationError([f"KALSHI_PRODUCTION_DATABASE_URL: {error}"]) from error


class _HeartbeatWriter:
    """Writes the row in production's `heartbeats` every `interval_s`, from a thread of its own: a merge may be long."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        interval_s: float,
        status: Callable[[], DeduplicatorStatus],
        run_id: str | None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._interval_s = interval_s
        self._status = status
        self._run_id = run_id
        self._started_at = clock.now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and write the last row."""
        self._stop.set()
        self._thread.join(timeout=10)
        self.write()

    def write(self) -> None:
        """Write the row now; a production database that is away is not an error of the heartbeat."""
        status = self._status()
        heartbeat = Heartbeat(SERVICE, self._clock.now(), self._started_at, status.state, status, run_id=self._run_id)
        try:
            write_heartbeat(self._database, heartbeat)
        except KalshiPlatformError as error:
            _log.debug("heartbeat_not_written", service=SERVICE, error=error)

    def _run(self) -> None:
        while True:
            self.write()
            if self._clock.wait(self._stop, self._interval_s):
                return
