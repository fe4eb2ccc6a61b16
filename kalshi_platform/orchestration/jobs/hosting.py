"""A Dagster run as the host of an endless service.

The service works in a thread of its own, because Dagster interrupts a run by raising an exception in the main thread,
at whatever line that is: in the middle of a commit, say. Here the interrupt meets a loop that only waits. It sets the
stop event, gives the service time to write what it has received, and lets the interrupt go on.

A run also stops by itself
- when its own status is no longer STARTED: Dagster thinks it is over, and another one may be on its way;
- after `rotate_after_s`, as a success: its supervisor starts the next one, so that log pages and memory stay bounded.
  A service that must not pause now (`may_rotate`) is asked again after `rotate_again_s`.

Dagster's database being away stops nothing: reports are dropped and the status counts as unchanged until it returns.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeAlias, TypeVar

import dagster as dg

from kalshi_platform.clock import SYSTEM_CLOCK, Clock

log = logging.getLogger(__name__)

ReportT = TypeVar("ReportT")
Event: TypeAlias = dg.AssetMaterialization | dg.AssetObservation


@dataclass(frozen=True)
class Hosting:
    """Pace of the host, in seconds."""

    status_every_s: float = 5.0
    rotate_after_s: float = 24 * 3600.0
    rotate_again_s: float = 3600.0
    stop_timeout_s: float = 40.0
    """How long a stopping service may take to write what it holds; the process ends with the run in any case."""


class _Worker(threading.Thread, Generic[ReportT]):
    """Runs the service; keeps its reports and, if it fails, its error."""

    def __init__(self, serve: Callable[[threading.Event, Callable[[ReportT], None]], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.stop = threading.Event()
        self.reports: SimpleQueue[ReportT] = SimpleQueue()
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self._serve = serve

    def run(self) -> None:
        try:
            self._serve(self.stop, self.reports.put)
        except BaseException as error:  # noqa: BLE001 (handed to the main thread, which raises it)
            self.error = error
        finally:
            self.ended.set()


def host(
    context: dg.OpExecutionContext,
    name: str,
    serve: Callable[[threading.Event, Callable[[ReportT], None]], None],
    events_of: Callable[[Sequence[ReportT]], Sequence[Event]],
    *,
    report_every_s: float = 60.0,
    hosting: Hosting | None = None,
    may_rotate: Callable[[], bool] = lambda: True,
    clock: Clock = SYSTEM_CLOCK,
) -> str:
    """Run `serve(stop, on_report)` until it ends, is interrupted, or should make room; return why it ended.

    `events_of` turns the reports of `report_every_s` into events for Dagster. Raises what the service raised.
    """
    hosting = hosting or Hosting()
    worker: _Worker[ReportT] = _Worker(serve, name)
    reason = "the service ended"
    status_at = reported_at = clock.monotonic()
    rotate_at = status_at + hosting.rotate_after_s
    try:
        worker.start()  # inside: an interrupt may come before it returns
        while not clock.wait(worker.ended, 0.5):
            now = clock.monotonic()
            if now >= rotate_at:
                if _may(may_rotate, name):
                    reason = "rotated: the supervisor starts the next run"
                    break
                rotate_at = now + hosting.rotate_again_s
            if now - status_at >= hosting.status_every_s:
                status_at = now
                if not _is_current(context):
                    reason = "Dagster counts this run as ended"
                    log.warning("%s: %s: stopping", name, reason)
                    break
            if now - reported_at >= report_every_s:
                reported_at = now
                _publish(context, worker, events_of)
    finally:
        worker.stop.set()
        _await(worker, hosting.stop_timeout_s, clock)
        _publish(context, worker, events_of)
    if worker.error is not None:
        raise worker.error
    return reason


def _may(may_rotate: Callable[[], bool], name: str) -> bool:
    try:
        allowed = may_rotate()
    except Exception:
        log.warning("%s: whether it may rotate could not be found out; it goes on", name, exc_info=True)
        return False
    if not allowed:
        log.info("%s: no other service would fill in for it; it goes on instead of rotating", name)
    return allowed


def _is_current(context: dg.OpExecutionContext) -> bool:
    try:
        run = context.instance.get_run_by_id(context.run_id)
    except Exception:
        log.info("Dagster's database did not answer; the service goes on", exc_info=True)
        return True
    return run is not None and run.status is dg.DagsterRunStatus.STARTED


def _await(worker: _Worker[ReportT], timeout_s: float, clock: Clock) -> None:
    """Wait for the service to end; further interrupts do not cut it short."""
    if worker.ident is None:
        return  # interrupted before the thread was made
    deadline = clock.monotonic() + timeout_s
    while not worker.ended.is_set() and clock.monotonic() < deadline:
        try:
            clock.wait(worker.ended, 0.5)
        except BaseException:  # noqa: BLE001 (the interrupt goes on when the first one does)
            log.info("interrupted again; still waiting for the service to write what it holds")
    if not worker.ended.is_set():
        log.error("%s did not end within %.0f s of being asked to", worker.name, timeout_s)


def _publish(
    context: dg.OpExecutionContext,
    worker: _Worker[ReportT],
    events_of: Callable[[Sequence[ReportT]], Sequence[Event]],
) -> None:
    reports: list[ReportT] = []
    while True:
        try:
            reports.append(worker.reports.get_nowait())
        except Empty:
            break
    if not reports:
        return
    try:
        for event in events_of(reports):
            context.log_event(event)
        # Dagster keeps logged events in memory for the rest of the step; they are stored already.
        for _ in context.consume_events():
            pass
    except Exception:
        log.warning("a report could not be given to Dagster", exc_info=True)
