"""A long-running run: a Dagster run that hosts a service which ends only when it is stopped.

The service works in a thread of its own, because Dagster interrupts a run by raising an exception in the main thread,
at whatever line that is: in the middle of a commit, say. Here the interrupt meets a loop that only waits. It sets the
stop event, gives the service time to write what it has received, and lets the interrupt go on.

A run also stops by itself
- when its own status is no longer STARTED: Dagster thinks it is over, and another one may be on its way;
- after `rotate_after_s`, or when it gets the tag ROTATE_TAG, as a success: its supervisor starts the next one, so that
  log pages and memory stay bounded. A service that must not pause now (`may_rotate`) is checked again after
  `rotate_again_s`. Where that cannot be known on this host, the tag decides: who sets it has looked.

Dagster's database being away stops nothing: reports are dropped and the status counts as unchanged until it returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Generic, TypeAlias, TypeVar

import dagster as dg

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.orchestration.jobs.asset_events import AssetEvent
from kalshi_platform.orchestration.services import ROTATE_TAG

_log = event_logger(__name__)

ReportT = TypeVar("ReportT")
Serve: TypeAlias = Callable[[threading.Event, Callable[[ReportT], None]], None]
"""`serve(stop, on_report)` runs a service until `stop` is set; it calls `on_report` from any thread."""


@dataclass(frozen=True)
class RunTiming:
    """When a long-running run looks at itself and ends, in seconds."""

    status_every_s: float = 5.0
    report_every_s: float = 60.0
    """Events for Dagster: one a minute, because its event log keeps them (17,280 a day at one in 5 s)."""
    rotate_after_s: float = 24 * 3600.0
    rotate_again_s: float = 3600.0
    stop_timeout_s: float = 40.0
    """How long a stopping service may take to write what it holds; the process ends with the run in any case."""


def run_service(
    context: dg.OpExecutionContext,
    name: str,
    serve: Serve[ReportT],
    make_events: Callable[[Sequence[ReportT]], Sequence[AssetEvent]],
    *,
    timing: RunTiming,
    may_rotate: Callable[[], bool] = lambda: True,
    clock: Clock = SYSTEM_CLOCK,
) -> str:
    """Run the service until it ends, is interrupted, or makes room for the next run; return why it ended.

    `make_events` turns the reports of `report_every_s` into events for Dagster. Raises what the service raised.
    """
    worker: _Worker[ReportT] = _Worker(serve, name)
    reason = "the service ended"
    status_at = reported_at = clock.monotonic()
    rotate_at = status_at + timing.rotate_after_s
    requested = False
    try:
        worker.start()  # inside: an interrupt may come before it returns
        while not clock.wait(worker.ended, 0.5):
            now = clock.monotonic()
            if now >= rotate_at:
                if _may_rotate_now(may_rotate, name, requested=requested):
                    reason = "rotated: the supervisor starts the next run"
                    break
                rotate_at = now + timing.rotate_again_s
            if now - status_at >= timing.status_every_s:
                status_at = now
                request = _read_request(context, name)
                if request is _Request.ROTATE and not requested:
                    requested, rotate_at = True, now
                if request is _Request.END:
                    reason = "Dagster counts this run as ended"
                    _log.warning("run_superseded", service=name, run_id=context.run_id, reason=reason)
                    break
            if now - reported_at >= timing.report_every_s:
                reported_at = now
                _publish(context, worker, make_events)
    finally:
        worker.stop.set()
        _wait_for_end(worker, timing.stop_timeout_s, clock)
        _publish(context, worker, make_events)
    if worker.error is not None:
        raise worker.error
    return reason


class _Worker(threading.Thread, Generic[ReportT]):
    """Runs the service; keeps its reports and, if it fails, its error."""

    def __init__(self, serve: Serve[ReportT], name: str) -> None:
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


def _may_rotate_now(may_rotate: Callable[[], bool], name: str, *, requested: bool) -> bool:
    try:
        allowed = may_rotate()
    except ConfigurationError as error:  # this host has no address of the others' databases
        if not requested:
            _log.info("rotation_put_off", service=name, reason=error)
        return requested
    except Exception:  # noqa: BLE001 - not rotating is always right
        _log.warning("rotation_put_off", service=name, reason="whether it may rotate is not known", exc_info=True)
        return False
    if not allowed:
        _log.info("rotation_put_off", service=name, reason="no other service would fill in for it")
    return allowed


class _Request(Enum):
    """What the record of the run asks of it."""

    GO_ON = "go on"
    ROTATE = "rotate"
    END = "end"


def _read_request(context: dg.OpExecutionContext, name: str) -> _Request:
    try:
        run = context.instance.get_run_by_id(context.run_id)
    except Exception:  # noqa: BLE001 - whatever it is, recording goes on
        _log.info("dagster_storage_unavailable", service=name, consequence="the service goes on", exc_info=True)
        return _Request.GO_ON
    if run is None or run.status is not dg.DagsterRunStatus.STARTED:
        return _Request.END
    return _Request.ROTATE if ROTATE_TAG in run.tags else _Request.GO_ON


def _wait_for_end(worker: _Worker[ReportT], timeout_s: float, clock: Clock) -> None:
    """Wait for the service to end; further interrupts do not cut it short."""
    if worker.ident is None:
        return  # interrupted before the thread was made
    deadline = clock.monotonic() + timeout_s
    while not worker.ended.is_set() and clock.monotonic() < deadline:
        try:
            clock.wait(worker.ended, 0.5)
        except BaseException:  # noqa: BLE001 (the interrupt goes on when the first one does)
            _log.info("interrupted_again", service=worker.name, consequence="still waits for the service to write")
    if not worker.ended.is_set():
        _log.error("service_did_not_stop", service=worker.name, timeout_s=timeout_s)


def _publish(
    context: dg.OpExecutionContext,
    worker: _Worker[ReportT],
    make_events: Callable[[Sequence[ReportT]], Sequence[AssetEvent]],
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
        for event in make_events(reports):
            context.log_event(event)
        # Dagster keeps logged events in memory for the rest of the step; they are stored already.
        for _ in context.consume_events():
            pass
    except Exception:  # noqa: BLE001 - whatever it is, recording goes on
        _log.warning("report_not_delivered", service=worker.name, exc_info=True)
