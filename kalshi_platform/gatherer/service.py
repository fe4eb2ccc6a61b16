"""One gatherer: everything that Kalshi publishes, into its pair of databases, until it is asked to stop.

Threads, all named after the gatherer: a connection each for the books' shards and one for trades, tickers and
lifecycle; the writer; the catalog; single markets; the minute's books; recovery; the heartbeat. They share a registry
(which markets), the writer's queue (every record) and one stop event. This module is its life from start to end;
`assembly` wires the parts, `routing` moves what they exchange, `pulse` tells how it is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.errors import AnotherWriter, DatabaseUnavailable, KalshiPlatformError
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.assembly import assemble, start_writer
from kalshi_platform.gatherer.capture.snapshot_poller import TOKENS_PER_REQUEST, cost_of_books
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.reports import Report
from kalshi_platform.gatherer.status.status_reporter import Pulse
from kalshi_platform.gatherer.threads import SAY_EVERY_S, Threads
from kalshi_platform.gatherer.wait_for_exchange import wait_until_active
from kalshi_platform.storage.partitions import PartitionBounds

_GOODBYE_S = 3.0
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
        self._clock = clock
        # Everything but the writer ends by this event: set by the caller's stop, the off switch or a fatal error.
        self._stop = threading.Event()
        self._fatal: BaseException | None = None
        self._pulse = Pulse(run_id, clock.now(), on_report, self._end)
        self.parts = assemble(settings, exchange, clock, bounds, self._stop, self._pulse.report)
        self._pulse.attach(self.parts)
        self._threads = Threads(settings.name, clock, self._stop)

    @property
    def switched_off(self) -> bool:
        """Whether it ended, or is about to, because `service_switches` says so."""
        return self._pulse.switched_off

    def status(self) -> dict[str, Any]:
        """Figures for people and machines; the heartbeat's details."""
        return self._pulse.status()

    def run(self, stop: threading.Event) -> None:
        """Record until `stop` is set, the off switch is set, or a fatal error; then write what is left and return.

        Raises AnotherWriter, ConfigurationError, SchemaMismatch. Whatever fails for a while is waited for.
        """
        relay = threading.Thread(target=self._relay, args=(stop,), name=f"{self.settings.name} stop", daemon=True)
        self.parts.lock.acquire_folder()
        try:
            relay.start()
            self.parts.checks.at_start()
            self._take_lease()
            if not self._stop.is_set():
                start_writer(self.parts)
                self._threads.start("heartbeat", self._pulse.beat)
                self._threads.start("database watch", self._pulse.watch_database)
                if self._pulse.is_wanted():
                    self._record()
        finally:
            self._shut_down()
        if self._fatal is not None:
            raise self._fatal

    # -- starting

    def _take_lease(self) -> None:
        # A server needs a moment to see that a killed predecessor is gone.
        lock = self.parts.lock
        while not self._stop.is_set() and not lock.check() and lock.is_refused:
            self._clock.wait(self._stop, 0.2)

    def _record(self) -> None:
        settings, parts, pulse, start = self.settings, self.parts, self._pulse, self._threads.start
        pulse.say("waiting_for_exchange")
        if not wait_until_active(
            parts.rest, self._clock, self._stop, settings.status_wait_max_s, pulse.set_note, parts.rest.clock_offset
        ):
            return
        pulse.say("syncing")
        start("markets", lambda: parts.fetcher.run(self._stop))
        # Announcements made while the catalog is read must not be missed.
        parts.fleet.start_feed()
        start("catalog", self._run_catalog)
        start("recovery", lambda: parts.recovery.run(self._stop))
        parts.fleet.start_books()
        start("snapshots", self._run_poller)
        self._threads.keep("markets followed", lambda: parts.router.follow(self._stop))

    # -- threads

    def _relay(self, stop: threading.Event) -> None:
        while not self._stop.is_set():
            if stop.wait(0.25):
                self._end(None)

    def _run_catalog(self) -> None:
        self.parts.keeper.load(self._stop)
        self._pulse.say("running")
        self.parts.keeper.run(self._stop)

    def _run_poller(self) -> None:
        exchange, rest, poller = self.parts.exchange, self.parts.rest, self.parts.poller
        poller.refill_per_s = exchange.reads_per_second * TOKENS_PER_REQUEST * exchange.rest_share
        try:
            poller.refill_per_s = rest.account_limits().read_refill_per_s * exchange.rest_share
            poller.tokens_per_request = cost_of_books(rest.endpoint_costs())
        except KalshiPlatformError as error:
            _log.warning("%s: the read budget is unknown (%s); assuming what is configured", self.settings.name, error)
        if self.settings.follow_books:
            poller.run(self._stop)

    # -- ending

    def _end(self, fatal: BaseException | None) -> None:
        if fatal is not None and self._fatal is None:
            self._fatal = fatal
        self._stop.set()
        self.parts.router.changed.set()

    def _shut_down(self) -> None:
        """Close sessions, write what is left, say goodbye, give the name back."""
        self._end(None)
        parts, pulse, settings = self.parts, self._pulse, self.settings
        pulse.say("stopping")
        self._await([(f"connection {each.name}", each.join) for each in parts.connections] + self._threads.joins())
        if parts.router.writer is not None:
            everything = parts.router.writer.stop(settings.stop_timeout_s, self._waits_for)
            _log.info(
                "%s: stopped; %s", settings.name, "everything is written" if everything else "the rest is spooled"
            )
            pulse.report_streams()
            pulse.say("stopped")
            pulse.write_file()
            self._threads.briefly("goodbye", self._say_goodbye, _GOODBYE_S)
        pulse.endpoint.close()
        self._threads.briefly("release", parts.lock.release, _GOODBYE_S)
        parts.dispose()

    def _await(self, joins: Sequence[tuple[str, Callable[[float], bool]]]) -> None:
        """Wait for what may still put records, and say for what. One deadline for all: a database that gives no answer
        may hold up several of them."""
        now = self._clock.monotonic()
        deadline, say_at = now + self.settings.stop_timeout_s, now + SAY_EVERY_S
        left = []
        for what, join in joins:
            while not join(max(0.0, min(say_at, deadline) - now)):
                now = self._clock.monotonic()
                if now >= deadline:
                    left.append(what)
                    break
                if now >= say_at:
                    self._waits_for(what)
                    say_at = now + SAY_EVERY_S
            now = self._clock.monotonic()
        if left:
            _log.warning("%s: stopping: waits no longer for %s", self.settings.name, ", ".join(left))

    def _waits_for(self, what: str) -> None:
        _log.info("%s: stopping: waits for %s", self.settings.name, what)
        self._pulse.set_note(f"waits for {what}")
        self._pulse.write_file()

    def _say_goodbye(self) -> None:
        if isinstance(self._fatal, AnotherWriter) or self.parts.lock.is_refused:
            return  # the row is the other one's now
        try:
            self._pulse.write_row()
        except DatabaseUnavailable as error:
            _log.warning("%s: no last heartbeat row: %s", self.settings.name, error)
