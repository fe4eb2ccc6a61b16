"""The signs of life of a running gatherer: state, heartbeat (file and row), reports; and what the database tells back.

Two threads: `beat` writes the file and sends reports, no database can hold it up; `watch_database` keeps the lease,
writes the row and obeys the off switch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from kalshi_platform.errors import AnotherWriter, DatabaseUnavailable
from kalshi_platform.gatherer.assembly import Parts
from kalshi_platform.gatherer.status import status_snapshot as figures
from kalshi_platform.gatherer.status.health import Health, health_of
from kalshi_platform.gatherer.status.heartbeat import FILE_NAME, Heartbeat, should_run, write_file, write_row
from kalshi_platform.gatherer.status.metrics import gatherer_metrics
from kalshi_platform.gatherer.status.poll_log import PollLog
from kalshi_platform.gatherer.status.reports import BooksPolled, Report
from kalshi_platform.monitoring.endpoint import Endpoint
from kalshi_platform.monitoring.metrics import Histogram, Metric

_REPORT_S = 60.0
# A quiet connection is asked for a sign of life within its silence limit, and made anew then: this is later.
_SILENT_SHARE = 1.25
_ENDING = frozenset({"stopping", "stopped"})
_log = logging.getLogger(__name__)


class Pulse:
    """Tells how the gatherer is."""

    def __init__(
        self,
        run_id: str | None,
        started_at: datetime,
        on_report: Callable[[Report], None] | None,
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        """`on_end(None)`: switched off; `on_end(error)`: somebody else holds the name. Call `attach` before use."""
        self.note = ""
        """What it waits for, if it does."""
        self.switched_off = False
        """Whether it ended, or is about to, because `service_switches` says so."""
        self._run_id = run_id
        self._started_at = started_at
        self._on_report = on_report
        self._on_end = on_end
        self._state = "starting"
        self._state_lock = threading.Lock()
        self.endpoint: Endpoint
        """Metrics and health; serves from the first beat until it is closed."""
        self._parts: Parts
        self._poll_log: PollLog
        self._figures: figures.Figures
        self._began_s: float

    def attach(self, parts: Parts) -> None:
        """Take the parts that it tells about."""
        self._parts = parts
        self._began_s = parts.clock.monotonic()
        self._poll_log = PollLog(parts.timeseries)
        self._figures = figures.Figures(parts.clock)
        self.endpoint = Endpoint(parts.settings.endpoint, parts.settings.name, self.metrics, self.health)

    # -- state

    def say(self, state: str) -> None:
        """Enter a state; after the end has begun, only states of the end."""
        with self._state_lock:
            # A thread that has just finished something must not speak after the end has begun.
            if state == self._state or (self._parts.stop.is_set() and state not in _ENDING):
                return
            _log.info("%s: %s", self._parts.settings.name, state.replace("_", " "))
            self._state = state
            self.note = ""

    def set_note(self, note: str) -> None:
        """Say what is waited for."""
        self.note = note

    @property
    def state(self) -> str:
        """The state it is in; `stalled` while nothing can be written anywhere."""
        state, writer = self._state, self._parts.router.writer
        return "stalled" if writer is not None and writer.is_stalled and state not in _ENDING else state

    def status(self) -> dict[str, Any]:
        """Figures for people and machines; the heartbeat's details."""
        writer = self._parts.router.writer
        note = (writer.trouble if writer is not None else None) or self.note
        state, details = self.state, {"note": note, **self._figures.status(self._parts)}
        health = self._judge(state, details)
        return {**details, "health": health.word, "reasons": list(health.reasons), "troubles": list(health.troubles)}

    def heartbeat(self) -> Heartbeat:
        """The sign of life as of now."""
        parts = self._parts
        return Heartbeat(
            service=parts.settings.service,
            at=parts.clock.now(),
            started_at=self._started_at,
            state=self.state,
            run_id=self._run_id,
            details=self.status(),
        )

    # -- for the endpoint

    def metrics(self) -> Iterator[Metric | Histogram]:
        """Figures for Prometheus."""
        state, details = self.state, self.status()
        return gatherer_metrics(state, not details["reasons"], details)

    def health(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether it records everything it should, and what needs somebody."""
        state, details = self.state, self.status()
        told = {
            "service": self._parts.settings.service,
            "state": state,
            "health": details["health"],
            "reasons": details["reasons"],
            "troubles": details["troubles"],
        }
        return not details["reasons"], told

    def _judge(self, state: str, details: Mapping[str, Any]) -> Health:
        parts = self._parts
        return health_of(
            state, details, parts.clock.monotonic() - self._began_s, parts.settings.silence_limit_s * _SILENT_SHARE
        )

    # -- threads

    def beat(self) -> None:
        """The heartbeat's file, the endpoint, and a report each minute."""
        parts = self._parts
        report_at = parts.clock.monotonic() + _REPORT_S
        while not parts.stop.is_set():
            self.endpoint.ensure()
            self._figures.look(parts)
            parts.clocks.look()
            self.write_file()
            if parts.clock.monotonic() >= report_at:
                report_at += _REPORT_S
                self.report_streams()
            parts.clock.wait(parts.stop, parts.settings.heartbeat_interval_s)

    def watch_database(self) -> None:
        """The heartbeat's row, the lease and the off switch."""
        parts = self._parts
        while not parts.stop.is_set():
            try:
                parts.checks.later()
                parts.lock.check()
                if not parts.lock.is_refused:  # else the row is the other one's
                    self.write_row()
                parts.clocks.ask_database()
                parts.open_transactions.ask()
                if not self.is_wanted():
                    self._on_end(None)
            except DatabaseUnavailable as error:
                _log.debug("%s: %s", parts.settings.name, error)
            except AnotherWriter as error:
                self._on_end(error)
            parts.clock.wait(parts.stop, parts.settings.heartbeat_interval_s)

    # -- what they do

    def is_wanted(self) -> bool:
        """Whether the off switch lets it run; a database that is away does."""
        service = self._parts.settings.service
        try:
            wanted = should_run(self._parts.timeseries, service)
        except DatabaseUnavailable:
            return True
        if not wanted:
            self.switched_off = True
            _log.info("%s is switched off in service_switches", service)
        return wanted

    def write_file(self) -> None:
        """Write the heartbeat's file; a disk that does not take it stops nothing."""
        settings = self._parts.settings
        try:
            write_file(settings.folder / FILE_NAME, self.heartbeat())
        except OSError as error:
            _log.warning("%s: the heartbeat file cannot be written: %s", settings.name, error)

    def write_row(self) -> None:
        """Write the heartbeat's row and what the polls achieved. Raises DatabaseUnavailable."""
        write_row(self._parts.timeseries, self.heartbeat())
        self._poll_log.write()

    def report_streams(self) -> None:
        """Report what was committed since the last time."""
        self.report(self._figures.streams(self._parts.router.writer, self._parts.connections))

    def report(self, report: Report) -> None:
        """Note a report and pass it on. Called from several threads."""
        self._figures.note(report)
        if isinstance(report, BooksPolled):
            self._poll_log.note(report)
        if self._on_report is not None:
            try:
                self._on_report(report)
            except Exception:  # noqa: BLE001 - the host's trouble is not ours
                _log.warning("%s: a report could not be delivered", self._parts.settings.name, exc_info=True)
