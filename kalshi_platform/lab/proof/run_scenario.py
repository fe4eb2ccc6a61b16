"""One run: the stack records while faults are injected, then everything is merged, closed and exported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.hours import find_active_hours
from kalshi_platform.deduplicator.merge.merge_pass import Merger
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.lab.proof.errors import Interrupted, ProofFailed
from kalshi_platform.lab.proof.examine import Aside
from kalshi_platform.lab.proof.faults.ground import Ground
from kalshi_platform.lab.proof.faults.inject import Injector
from kalshi_platform.lab.proof.faults.observe import Observer
from kalshi_platform.lab.proof.faults.past_hour import PastHour
from kalshi_platform.lab.proof.faults.schedule import plan
from kalshi_platform.lab.proof.faults.stack import ProofStack
from kalshi_platform.lab.proof.faults.watch import Watch
from kalshi_platform.lab.proof.kinds import RECOVERY_S, InjectedFault
from kalshi_platform.lab.proof.options import ProofOptions
from kalshi_platform.lab.proof.verdict import RunRecord
from kalshi_platform.lab.waiting import wait_for_answer
from kalshi_platform.lake.datasets import RAW_TABLES
from kalshi_platform.lake.export import export_raw
from kalshi_platform.market.times import HOUR
from kalshi_platform.monitoring.heartbeat import read_file
from kalshi_platform.storage.pool import Database

PROGRESS_S = 10.0
LOOK_S = 0.5
"""How often logs and health are looked at, with the plan `ground`."""
PAST_S, PAST_RATE = 8.0, 200.0
"""How long, and with how many messages per second, the exchange trades in the hour before."""
READY_S = 90.0
LAST_WORDS_S = 1.5
"""After the last message: for frames on their way, and for the writers' last flush."""


class Recorder:
    """Runs a started stack through one proof."""

    def __init__(
        self, stack: ProofStack, options: ProofOptions, stop: threading.Event, say: Callable[[str], None], clock: Clock
    ) -> None:
        self._stack = stack
        self._options = options
        self._stop = stop
        self._say = say
        self._clock = clock
        self._began: float | None = None
        self._next_progress = 0.0
        self._published_before = 0
        self._watch = Watch(stack.group.log_dir, stack.health_urls())
        self._look_at = 0.0
        self._past: PastHour | None = None

    def run_scenario(self) -> RunRecord:
        """Let the exchange trade, inject the faults, stop in order, merge and export.

        Raises Interrupted or ProofFailed.
        """
        options, stack = self._options, self._stack
        self._until_ready()
        ground: Ground | None = None
        seen = Observer(stack, options.names, self._wait, self._clock)
        if options.faults == "ground":
            self._past = self._record_past()
            ground = Ground(stack, options.names, self._wait, self._clock, seen, self._past, self._watch)
        injector = Injector(stack, options.names, self._wait, self._clock, seen, ground)
        planned = plan(options.faults, options.names, options.seconds, options.seed)
        self._say(f"{len(options.names)} gatherers hold every book; the exchange begins to trade")
        before = stack.venue.state()
        self._published_before = before["published"]["total"]
        stack.venue.rate(options.rate)
        self._began = began = self._clock.monotonic()
        self._next_progress = began + PROGRESS_S
        for fault in planned:
            self._wait(max(0.0, began + fault.at_s - self._clock.monotonic()))
            done = injector.inject(fault)
            self._say(f"[{self._elapsed():4.0f} s] {done.name}: {done.effect or 'no effect was observed'}")
            for clause in done.broken:
                self._say(f"         WRONG: {clause}")
        silent = injector.recover()
        if ground is not None:
            ground.settle()
        self._wait(max(0.0, began + options.seconds - self._clock.monotonic()))
        seconds = self._elapsed()
        after = stack.venue.state()
        stack.venue.rate(0.0)
        if seconds > options.seconds + 1:
            self._say(f"the faults took until {seconds:.0f} s to heal")
        end_us = int(stack.venue.state()["clock_us"])
        self._began = None
        left, counted = self._stop_in_order()
        self._merge_and_export()
        return RunRecord(
            level=options.faults,
            gatherers=options.names,
            rate=options.rate,
            seconds=seconds,
            run=(int(before["clock_us"]), end_us),
            published=after["published"]["total"] - self._published_before,
            faults=tuple(injector.done),
            counted=counted,
            left_in_journals=left,
            silent=silent,
            aside=None if ground is None else _aside(ground, injector.done),
            sightings=tuple(self._watch.sightings),
        )

    # -- steps

    def _until_ready(self) -> None:
        names = self._options.names
        if not self._soon(lambda: all(self._stack.venue.holding_all(name) for name in names), READY_S):
            raise ProofFailed(
                f"the gatherers did not get going within {READY_S:.0f} s; see {self._stack.group.log_dir}"
            )
        self._wait(0.5)

    def _record_past(self) -> PastHour:
        """Let the exchange trade in the hour before this one; merge, close and export that hour, then go on to now."""
        stack, options = self._stack, self._options
        began_us = stack.venue.clock_us()
        self._say(f"first the exchange trades in the hour of {stack.past_hour:%H:%M}, which is closed and exported")
        stack.venue.rate(min(options.rate, PAST_RATE))
        self._wait(PAST_S)
        stack.venue.rate(0.0)
        self._wait(LAST_WORDS_S)
        self._soon(stack.venue.drained, RECOVERY_S)
        now = self._clock.now()
        self._soon(lambda: all(self._is_ingested(name, now) for name in self._options.names), RECOVERY_S)
        past = PastHour(stack, self._clock, (began_us, stack.venue.clock_us()))
        stack.leave_past()
        past.close()
        past.export()
        self._until_ready()
        return past

    def _is_ingested(self, gatherer: str, since: datetime) -> bool:
        """Whether a gatherer said after `since` that its journal is in its database."""
        settings = self._stack.settings.gatherers[gatherer]
        heartbeat = read_file(settings.heartbeat_file, GathererStatus)
        ingest = None if heartbeat is None or heartbeat.at <= since else heartbeat.details.ingest
        return ingest is not None and not ingest.behind_bytes

    def _stop_in_order(self) -> tuple[int, dict[str, int]]:
        """The exchange first: what it published last has then been sent, and its ledger is final.

        Returns the bytes of journals that are in no database, and what the exchange counted of what it published
        without a clock's help.
        """
        stack, names = self._stack, self._options.names
        self._wait(LAST_WORDS_S)
        self._soon(stack.venue.drained, RECOVERY_S)
        published: dict[str, int] = {}

        def is_quiet() -> bool:
            # On a busy machine the exchange is behind its own clock, and publishes what is due later.
            nonlocal published
            before, published = published, stack.venue.state()["published"]
            return before == published

        self._soon(is_quiet, RECOVERY_S)
        stack.stop_exchange()
        self._soon(lambda: all(not stack.ingest_status(name).behind_bytes for name in names), RECOVERY_S)
        stack.stop_services()
        self._say("exchange, gatherers and live merge have stopped")
        left = sum(stack.ingest_status(name).behind_bytes for name in names)
        return left, {kind: published[kind] for kind in ("delta", "trade", "ticker")}

    def _merge_and_export(self) -> None:
        settings = self._stack.settings
        merger = Merger(settings.deduplicator, self._clock, settings.bounds)
        try:
            while merger.merge_new().behind:
                pass
        finally:
            merger.dispose()
        merge_catalog(settings.deduplicator, self._clock)
        production = Database(settings.deduplicator.production_url, name="production")
        try:
            hours = find_active_hours(production)
        finally:
            production.dispose()
        for hour in hours:
            if self._past is not None and hour == self._past.hour:
                # Whoever keeps the lake up to date does no more than production says.
                if self._past.is_to_close():
                    self._past.close()
                    self._past.export()
                continue
            state = "closed" if hour + HOUR <= self._clock.now() - timedelta(seconds=1) else "open"
            closed = close_hour(settings.deduplicator, hour, self._clock, settings.bounds, final=state == "closed")
            for table in RAW_TABLES:
                export_raw(
                    settings.lake,
                    settings.deduplicator.production_url,
                    table,
                    hour,
                    state="closed" if closed.final else "open",
                )
            self._say(f"hour {hour:%Y-%m-%d %H:00} merged again, checkpointed and exported ({state})")

    # -- time

    def _elapsed(self) -> float:
        return 0.0 if self._began is None else self._clock.monotonic() - self._began

    def _wait(self, seconds: float) -> None:
        """Let time pass; meanwhile children that ended are started again and progress is told."""
        deadline = self._clock.monotonic() + seconds
        while True:
            exits = self._stack.group.poll()
            is_watched = self._past is not None and self._stack.group.pid("exchange") is not None
            if is_watched and (exits or self._clock.monotonic() >= self._look_at):
                self._watch.look(self._stack.venue.clock_us(), exits)
                self._look_at = self._clock.monotonic() + LOOK_S
            if self._stop.is_set():
                raise Interrupted("stopped before the end; nothing is proven")
            if self._began is not None and self._clock.monotonic() >= self._next_progress:
                self._next_progress += PROGRESS_S
                self._progress()
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            self._clock.wait(self._stop, min(0.2, left))

    def _soon(self, probe: Callable[[], bool], patience_s: float) -> bool:
        return bool(wait_for_answer(probe, patience_s, self._wait, self._clock, 0.1))

    def _progress(self) -> None:
        published = self._stack.venue.state()["published"]["total"] - self._published_before
        self._say(f"[{self._elapsed():4.0f} s] {published:,} messages published")


def _aside(ground: Ground, done: Sequence[InjectedFault]) -> Aside:
    past = ground.past.past
    is_dropped = any(fault.kind == "production_partitions_dropped" for fault in done)
    return Aside(past.hour, past.hour if is_dropped else None, tuple(ground.told))
