"""Runs whose process is gone, found by what their launch had said of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import psutil
import pytest

from kalshi_platform.orchestration.sensors.dead_runs import end_dead_runs, is_its_process

HERE, ELSEWHERE = "kalshi_platform", "another"
# Of this process, which may have run other tests for long.
STARTED_AT = psutil.Process().create_time()


class Instance:
    """Runs in progress, each with the event of its launch."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.pids: dict[str, int] = {}
        self.named_at: dict[str, float] = {}
        self.failed: dict[str, str] = {}

    def add(self, run_id: str, pid: int, location: str = HERE, tags: dict[str, str] | None = None) -> None:
        origin = SimpleNamespace(location_name=location)
        self.runs[run_id] = SimpleNamespace(
            run_id=run_id, job_name="close_hours", tags=tags or {}, remote_job_origin=origin, is_finished=False
        )
        self.pids[run_id] = pid

    def get_run_records(self, filters: dg.RunsFilter) -> list[Any]:
        assert filters.statuses == [dg.DagsterRunStatus.STARTED]
        return [SimpleNamespace(dagster_run=run) for run in self.runs.values()]

    def all_logs(self, run_id: str, of_type: object) -> list[Any]:
        assert of_type is dg.DagsterEventType.ENGINE_EVENT
        event = SimpleNamespace(message=f"Started process for run (pid: {self.pids[run_id]}).")
        return [SimpleNamespace(dagster_event=event, timestamp=self.named_at.get(run_id, STARTED_AT))]

    def get_run_by_id(self, run_id: str) -> Any:
        return self.runs[run_id]

    def report_run_failed(self, run: Any, message: str) -> None:
        self.failed[run.run_id] = message


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    ended.wait()
    return ended.pid


def test_only_a_batch_of_this_location_without_a_process_is_failed(gone: int) -> None:
    instance = Instance()
    instance.add("lost", gone)
    instance.add("works", os.getpid())
    instance.add("service", gone, tags={"kalshi/service": "gatherer/g1"})
    instance.add("of another location", gone, ELSEWHERE)
    assert end_dead_runs(cast(dg.DagsterInstance, instance), HERE) == ["lost"]
    assert instance.failed == {"lost": f"its process {gone} is gone, and so is the server that had started it"}


@pytest.mark.parametrize("tags", [{}, {"kalshi/service": "gatherer/g1"}])
def test_a_process_belongs_to_the_run_that_named_its_number_last(tags: dict[str, str]) -> None:
    instance = Instance()
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        instance.add("before the restart", child.pid)
        instance.add("after it", child.pid, tags=tags)
        instance.named_at = {"before the restart": time.time() - 3_600, "after it": time.time()}
        assert end_dead_runs(cast(dg.DagsterInstance, instance), HERE) == ["before the restart"]
    finally:
        child.communicate(b"\n")


def test_a_process_that_took_the_number_later_is_another(gone: int) -> None:
    assert is_its_process(os.getpid(), STARTED_AT)
    assert not is_its_process(os.getpid(), STARTED_AT - 7 * 86_400)
    assert not is_its_process(gone, time.time())


def test_a_child_of_this_server_is_it_whatever_was_done_to_the_clock() -> None:
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert is_its_process(child.pid, time.time() - 7 * 86_400)
    finally:
        child.communicate(b"\n")
