"""Reports on a running gatherer: state, heartbeat (file and row), health, metrics, and rows committed.

Everything is a view of one status, which is made from the parts when it is needed, without waiting for a database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Protocol

from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.health import with_health
from kalshi_platform.gatherer.status.metrics import gatherer_metrics
from kalshi_platform.gatherer.status.report_publisher import ReportPublisher
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.gatherer.status.status_snapshot import StatusTrends, StreamCounts
from kalshi_platform.monitoring.endpoint import Endpoint, Health, health_of
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.heartbeat import Heartbeat, write_file
from kalshi_platform.monitoring.metrics import MetricFamily

_REPORT_S = 60.0
# A quiet connection is probed within its silence limit, and replaced then: this is later.
_SILENT_SHARE = 1.25
_ENDING = frozenset({"stopping", "stopped"})
_log = event_logger(__name__)


class StatusSource(Protocol):
    """Describes what the reporter needs of the parts of a gatherer."""

    def status(self) -> GathererStatus:
        """Return the status of all parts as of now, without state, health and trends."""


class StatusReporter:
    """Makes and writes the views of the status; `run` needs its own thread, other methods are for any."""

    def __init__(
        self,
        settings: GathererSettings,
        clock: Clock,
        stop: threading.Event,
        parts: StatusSource,
        reports: ReportPublisher,
        run_id: str | None,
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Set up the reporter.

        `run_id` names the host's run in heartbeats; `on_beat()` is called with each heartbeat and must not block.
        """
        self.note = ""
        """What the gatherer waits for, or empty."""
        self._settings = settings
        self._clock = clock
        self._stop = stop
        self._parts = parts
        self._reports = reports
        self._run_id = run_id
        self._on_beat = on_beat
        self._started_at: datetime = clock.now()
        self._state = "starting"
        self._state_lock = threading.Lock()
        self._trends = StatusTrends(clock.monotonic())
        self._streams = StreamCounts(clock.now())
        self._endpoint = Endpoint(settings.endpoint, settings.name, self.metrics, self.health)

    # -- state

    def set_state(self, state: str) -> None:
        """Enter a state; after the end has begun, only states of the end."""
        with self._state_lock:
            # A thread that just finished its work must not report a state after the end has begun.
            if state == self._state or (self._stop.is_set() and state not in _ENDING):
                return
            _log.info("state_changed", gatherer=self._settings.name, state=state)
            self._state = state
            self.note = ""

    def set_note(self, note: str) -> None:
        """Set what the gatherer waits for; the next state clears it."""
        self.note = note

    # -- the status and its views

    def status(self) -> GathererStatus:
        """Return the whole status as of now."""
        status = self._parts.status()
        self._trends.add_to(status, self._clock.monotonic())
        unwritable = None if status.journal is None else status.journal.unwritable
        status.state = "stalled" if unwritable and self._state not in _ENDING else self._state
        status.note = unwritable or self.note
        return with_health(status, self._settings.silence_limit_s * _SILENT_SHARE)

    def heartbeat(self) -> Heartbeat[GathererStatus]:
        """Return the heartbeat as of now."""
        status = self.status()
        return Heartbeat(
            self._settings.service, self._clock.now(), self._started_at, status.state, status, run_id=self._run_id
        )

    def metrics(self) -> Iterator[MetricFamily]:
        """Return the metrics for `/metrics`."""
        return gatherer_metrics(self.status())

    def health(self) -> Health:
        """Return the answer of `/healthz`."""
        return health_of(self._settings.service, self.status())

    # -- work

    def run(self) -> None:
        """Write the heartbeat's file, serve the endpoint, and publish a report each minute, until the end has begun."""
        report_at = self._clock.monotonic() + _REPORT_S
        while not self._stop.is_set():
            self._endpoint.ensure()
            self._trends.update(self._parts.status(), self._clock.monotonic())
            self._on_beat()
            self.write_file()
            if self._clock.monotonic() >= report_at:
                report_at += _REPORT_S
                self.publish_streams()
            self._clock.wait(self._stop, self._settings.heartbeat_interval_s)

    def write_file(self) -> None:
        """Write the heartbeat's file; log a disk that cannot be written."""
        try:
            write_file(self._settings.heartbeat_file, self.heartbeat())
        except OSError as error:
            _log.warning("heartbeat_file_not_written", gatherer=self._settings.name, error=error)

    def publish_streams(self) -> None:
        """Publish what was committed since the last report."""
        self._reports.publish(self._streams.report(self._parts.status(), self._clock.now()))

    def close(self) -> None:
        """Close the endpoint."""
        self._endpoint.close()
