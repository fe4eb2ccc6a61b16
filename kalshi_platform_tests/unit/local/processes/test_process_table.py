"""Processes of this machine, found by what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kalshi_platform.local.processes import process_table

VARIABLE = "KALSHI_TEST_PROCESS_TABLE"
NO_PID = 2**40


@pytest.fixture
def child(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a variable in its environment, in a session and a folder of its own, that has begun to run."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "print(flush=True); import time; time.sleep(600)"],
        cwd=tmp_path,
        env={VARIABLE: str(tmp_path)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_living_process_is_found_by_environment_folder_group_and_parent(
    child: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert process_table.is_alive(child.pid)
    assert process_table.find_by_environment(VARIABLE, lambda value: value == str(tmp_path)) == {child.pid}
    assert process_table.find_by_working_directory(tmp_path.resolve()) == {child.pid}
    assert process_table.find_group_members(child.pid) == {child.pid}
    assert child.pid in process_table.find_descendants({os.getpid()})
    assert process_table.total_cpu_s([child.pid]) >= 0.0


def test_a_process_that_was_not_collected_counts_as_ended(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    handle = process_table.find_process(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process_table.is_alive(child.pid)
    assert process_table.find_by_environment(VARIABLE, lambda value: value == str(tmp_path)) == set()
    assert process_table.find_group_members(child.pid) == set()
    assert handle is not None
    assert handle.is_running(), "its pid cannot be another's yet"
    child.wait()
    assert not handle.is_running()


@pytest.mark.parametrize("pid", [NO_PID, 2**70])
def test_a_pid_without_a_process_is_passed_over(pid: int) -> None:
    assert not process_table.is_alive(pid)
    assert process_table.find_process(pid) is None
    assert process_table.working_directory(pid) is None
    assert process_table.total_cpu_s([pid]) == 0.0
