"""A run that hosts a service: stopping, reporting, rotating, and Dagster's storage being away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import AnotherWriter, ConfigurationError
from kalshi_platform.orchestration.jobs.long_running import RunTiming, run_service


class Service:
    """Stands for a long-running service: reports, then waits for stop, then writes what it holds."""

    def __init__(self, reports: int = 1, fails: Exception | None = None) -> None:
        self.working = threading.Event()
        self.flushed = threading.Event()
        self._reports = reports
        self._fails = fails

    def serve(self, stop: threading.Event, on_report: Callable[[int], None]) -> None:
        for number in range(self._reports):
            on_report(number)
        self.working.set()
        if self._fails is not None:
            raise self._fails
        stop.wait(30)
        self.flushed.set()


class Context:
    """The part of an op's context that the host uses."""

    run_id = "run-1"

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.status = dg.DagsterRunStatus.STARTED
        self.tags: dict[str, str] = {}
        self.away = False
        self.instance = SimpleNamespace(get_run_by_id=self._run)

    def _run(self, _: str) -> object:
        if self.away:
            raise ConnectionError("Dagster's database is away")
        return SimpleNamespace(status=self.status, tags=self.tags)

    def log_event(self, event: object) -> None:
        if self.away:
            raise ConnectionError("Dagster's database is away")
        self.events.append(event)

    def consume_events(self) -> Iterator[object]:
        return iter(())


FAST = RunTiming(status_every_s=0.0, report_every_s=0.0, rotate_after_s=30.0, stop_timeout_s=10.0)


def run(
    context: Context, service: Service, timing: RunTiming = FAST, may_rotate: Callable[[], bool] = lambda: True
) -> str:
    return run_service(
        context,  # type: ignore[arg-type]
        "service",
        service.serve,
        lambda reports: [dg.AssetObservation("a", metadata={"reports": len(reports)})],
        timing=timing,
        may_rotate=may_rotate,
        clock=SYSTEM_CLOCK,
    )


def test_a_run_that_dagster_counts_as_ended_stops_its_service() -> None:
    context, service = Context(), Service()
    context.status = dg.DagsterRunStatus.CANCELED
    assert run(context, service) == "Dagster counts this run as ended"
    assert service.flushed.is_set()


def test_a_run_that_is_asked_to_rotate_ends_once_another_fills_in() -> None:
    context, service = Context(), Service()
    context.tags["kalshi/rotate"] = "yes"
    answers = iter([False, True])
    timing = RunTiming(status_every_s=0.0, rotate_after_s=3600.0, rotate_again_s=0.1, stop_timeout_s=10.0)
    assert run(context, service, timing, lambda: next(answers)).startswith("rotated")
    assert service.flushed.is_set()


def test_a_run_whose_host_does_not_know_the_others_rotates_when_it_is_requested() -> None:
    context, service = Context(), Service()
    calls: list[int] = []

    def may_rotate() -> bool:
        calls.append(len(calls))
        if len(calls) == 2:  # put off once by its own time; now the job has looked for it
            context.tags["kalshi/rotate"] = "yes"
        raise ConfigurationError(["g2 is not configured here"])

    timing = RunTiming(status_every_s=0.0, rotate_after_s=0.1, rotate_again_s=0.1, stop_timeout_s=10.0)
    assert run(context, service, timing, may_rotate).startswith("rotated")
    assert len(calls) == 3


def test_dagsters_database_away_stops_nothing() -> None:
    context, service = Context(), Service()
    context.away = True
    assert run(
        context, service, RunTiming(status_every_s=0.0, report_every_s=0.0, rotate_after_s=1.2, stop_timeout_s=10)
    ).startswith("rotat")
    assert service.flushed.is_set()
    assert context.events == []


def test_a_refused_rotation_is_tried_again_until_allowed() -> None:
    answers: Iterator[bool | Exception] = iter([False, ConnectionError("nobody knows"), True])
    asked = []

    def may_rotate() -> bool:
        answer = next(answers)
        asked.append(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    context, service = Context(), Service()
    timing = RunTiming(report_every_s=0.0, rotate_after_s=0.1, rotate_again_s=0.1, stop_timeout_s=10.0)
    assert run(context, service, timing, may_rotate).startswith("rotated")
    assert len(asked) == 3


def test_reports_become_events_also_those_made_while_stopping() -> None:
    context, service = Context(), Service(reports=3)
    run(context, service, RunTiming(report_every_s=0.0, rotate_after_s=0.4))
    assert sum(event.metadata["reports"].value for event in context.events) == 3


def test_an_error_of_the_service_ends_the_run_with_it() -> None:
    with pytest.raises(AnotherWriter):
        run(Context(), Service(fails=AnotherWriter("g1 is held by another process")))


def test_an_interrupt_lets_the_service_write_what_it_holds() -> None:
    context, service = Context(), Service()

    def interrupt() -> None:
        service.working.wait(10)
        signal.raise_signal(signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)

    def interrupted(*_: object) -> None:
        raise dg.DagsterExecutionInterruptedError

    before = signal.signal(signal.SIGINT, interrupted)
    interrupter.start()
    try:
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            run(context, service)
    finally:
        interrupter.join()
        signal.signal(signal.SIGINT, before)
    assert service.flushed.is_set()
    assert context.events, "what was reported before the interrupt is told"
