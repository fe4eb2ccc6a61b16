"""Child processes on real processes: signals, restarts, descendants, and the death of their parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kalshi_platform.errors import AnotherWriter, ConfigurationError
from kalshi_platform.local.processes import orphan_reaper, process_group, process_table
from kalshi_platform.local.processes.process_group import ChildExit, ChildSpec, ProcessGroup, backoff_s
from kalshi_platform.local.processes.stop_signals import stop_on_signals

WAIT_S = 20


def until(condition: Callable[[], bool]) -> None:
    assert process_table.wait_until(condition, WAIT_S, interval_s=0.02)


def script(name: str, code: str, folder: Path, *, restart: bool = False, stop_timeout_s: float = 10) -> ChildSpec:
    """A child that runs Python code; `touch(NAME)` in it leaves a file with the pid in `folder`."""
    prelude = (
        "import os, signal, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "def touch(name):\n"
        "    Path(name + '.new').write_text(str(os.getpid())); Path(name + '.new').rename(name)\n"
    )
    return ChildSpec(
        name,
        [sys.executable, "-I", "-c", prelude + textwrap.dedent(code)],
        {"PATH": "/usr/bin:/bin", "SECRET": "hunter2"},
        folder,
        restart=restart,
        stop_timeout_s=stop_timeout_s,
    )


def pid_in(path: Path) -> int:
    until(path.exists)
    return int(path.read_text(encoding="utf-8"))


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ProcessGroup]:
    group = ProcessGroup(tmp_path / "logs")
    yield group
    group.stop_all(0)


GRACEFUL = """
try:
    touch("up")
    time.sleep(600)
except KeyboardInterrupt:
    touch("stopped")
"""


def test_a_stopped_child_gets_its_signal_and_its_time(group: ProcessGroup, tmp_path: Path) -> None:
    pid = group.start(script("gatherer", GRACEFUL, tmp_path))
    assert pid_in(tmp_path / "up") == pid == group.pid("gatherer")
    group.stop_all()
    assert (tmp_path / "stopped").exists()
    assert not process_table.is_alive(pid)


def test_children_stop_in_reverse_order(group: ProcessGroup, tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        code = f"""
        try:
            touch({name!r})
            time.sleep(600)
        except KeyboardInterrupt:
            open("order", "a").write({name!r} + " ")
        """
        group.start(script(name, code, tmp_path))
        pid_in(tmp_path / name)
    group.stop_all()
    assert (tmp_path / "order").read_text() == "third second first "


def test_a_child_that_ignores_its_signal_is_killed(group: ProcessGroup, tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGINT, signal.SIG_IGN); touch('up'); time.sleep(600)"
    pid = group.start(script("stubborn", code, tmp_path, stop_timeout_s=0.3))
    pid_in(tmp_path / "up")
    group.stop_all()
    assert not process_table.is_alive(pid)


def test_the_deadline_bounds_all_children_together(group: ProcessGroup, tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGINT, signal.SIG_IGN); touch(sys.argv[1]); time.sleep(600)"
    pids = []
    for name in ("a", "b", "c"):
        spec = script(name, code, tmp_path, stop_timeout_s=600)
        pids.append(group.start(ChildSpec(name, [*spec.argv, name], spec.env, tmp_path, stop_timeout_s=600)))
        pid_in(tmp_path / name)
    group.stop_all(deadline_s=0.5)  # far below the three timeouts, so the test's own limit would end it otherwise
    assert not any(map(process_table.is_alive, pids))


SLOW_TO_END = """
def work(how):
    if how == "say":
        for number in range(12):
            Path("said").write_text(str(number))
            time.sleep(0.2)
    elif how == "compute":
        until = time.process_time() + 1.5
        while time.process_time() < until:
            pass
    elif how == "for ever":
        while True:
            Path("said").write_text(str(time.monotonic()))
            time.sleep(0.05)
    else:
        time.sleep(600)
try:
    touch("up")
    time.sleep(600)
except KeyboardInterrupt:
    work({how!r})
    touch("done")
"""


@pytest.mark.parametrize(
    ("how", "limit_s", "finishes"),
    [("say", 60.0, True), ("compute", 60.0, True), ("for ever", 3.0, False), ("nothing", 60.0, False)],
)
def test_a_child_that_still_works_is_waited_for_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, limit_s: float, finishes: bool
) -> None:
    monkeypatch.setattr(process_group, "REPORT_EVERY_S", 0.5)
    lines: list[str] = []
    group = ProcessGroup(tmp_path / "logs", say=lines.append)

    def still() -> str:
        said = tmp_path / "said"
        return f"step {said.read_text()}" if said.exists() else ""

    spec = script("gatherer", SLOW_TO_END.replace("{how!r}", repr(how)), tmp_path)
    try:
        group.start(replace(spec, stop_timeout_s=1.0, stop_limit_s=limit_s, describe_remaining=still))
        pid_in(tmp_path / "up")
        group.stop("gatherer")
        assert (tmp_path / "done").exists() is finishes
        assert group.killed == ([] if finishes else ["gatherer"])
        assert lines
        assert lines[0].startswith("waiting for gatherer to end (")
        assert how in {"compute", "nothing"} or "step" in lines[-1]
    finally:
        group.stop_all(0)


def test_children_that_are_stopped_together_end_together(group: ProcessGroup, tmp_path: Path) -> None:
    """Each waits, at its end, for the other to have been asked, too."""
    for name, other in (("a", "b"), ("b", "a")):
        code = f"""
        try:
            touch("up-{name}")
            time.sleep(600)
        except KeyboardInterrupt:
            touch("asked-{name}")
            while not Path("asked-{other}").exists():
                time.sleep(0.02)
            touch("done-{name}")
        """
        group.start(script(name, code, tmp_path))
        pid_in(tmp_path / f"up-{name}")
    group.stop("a", "b")
    assert (tmp_path / "done-a").exists()
    assert (tmp_path / "done-b").exists()


DAGSTER_SHAPED = """
# A parent whose worker runs in a session of its own, with a clean list of open files, as Dagster's runs do.
subprocess.Popen([sys.executable, "-I", "-c", '''
import os, signal, time
from pathlib import Path
signal.signal(signal.SIGINT, {worker_sigint})
Path("worker.new").write_text(str(os.getpid())); Path("worker.new").rename("worker")
time.sleep(600)
'''], start_new_session=True)
touch("up")
{then}
"""


@pytest.mark.parametrize("worker_sigint", ["signal.default_int_handler", "signal.SIG_IGN"])
def test_stop_all_ends_descendants_that_left_the_group(group: ProcessGroup, tmp_path: Path, worker_sigint: str) -> None:
    code = DAGSTER_SHAPED.format(worker_sigint=worker_sigint, then="time.sleep(600)")
    group.start(script("dagster", code, tmp_path, stop_timeout_s=1))
    worker = pid_in(tmp_path / "worker")
    assert process_table.group_of(worker) == worker
    group.stop_all()
    assert not process_table.is_alive(worker)


def test_stop_all_ends_descendants_whose_parent_has_died(group: ProcessGroup, tmp_path: Path) -> None:
    code = DAGSTER_SHAPED.format(worker_sigint="signal.SIG_IGN", then="time.sleep(600)")
    parent = group.start(script("dagster", code, tmp_path, stop_timeout_s=0.5))
    worker = pid_in(tmp_path / "worker")
    os.kill(parent, signal.SIGKILL)
    until(lambda: not process_table.is_alive(parent))
    group.stop_all()
    assert not process_table.is_alive(worker)


def test_a_restarted_parent_does_not_meet_its_old_worker(group: ProcessGroup, tmp_path: Path) -> None:
    code = DAGSTER_SHAPED.format(worker_sigint="signal.SIG_IGN", then="time.sleep(600)")
    parent = group.start(script("dagster", code, tmp_path, restart=True, stop_timeout_s=1.5))
    worker = pid_in(tmp_path / "worker")
    os.kill(parent, signal.SIGKILL)
    until(lambda: bool(group.poll()))
    (tmp_path / "worker").unlink()

    def restarted() -> bool:
        group.poll()
        return group.pid("dagster") is not None

    until(restarted)
    assert not process_table.is_alive(worker)
    assert pid_in(tmp_path / "worker") != worker


def test_descendants_that_may_stay_outlive_their_parent_until_the_child_is_stopped(
    group: ProcessGroup, tmp_path: Path
) -> None:
    code = DAGSTER_SHAPED.format(worker_sigint="signal.SIG_IGN", then="time.sleep(600)")
    spec = replace(script("code", code, tmp_path, restart=True, stop_timeout_s=0.5), descendants_stay=True)
    parent = group.start(spec)
    first = pid_in(tmp_path / "worker")
    (tmp_path / "worker").unlink()
    os.kill(parent, signal.SIGKILL)

    def has_new_worker() -> bool:
        group.poll()
        return (tmp_path / "worker").exists()

    until(has_new_worker)
    second = pid_in(tmp_path / "worker")
    assert process_table.is_alive(first)
    group.stop("code")
    assert not process_table.is_alive(first)
    assert not process_table.is_alive(second)


def test_restart_ends_the_old_life_first(group: ProcessGroup, tmp_path: Path) -> None:
    old = group.start(script("dagster", GRACEFUL, tmp_path))
    assert pid_in(tmp_path / "up") == old
    (tmp_path / "up").unlink()
    new = group.restart("dagster")
    assert not process_table.is_alive(old)
    assert pid_in(tmp_path / "up") == new == group.pid("dagster")


def test_a_child_is_restarted_with_growing_waits(
    group: ProcessGroup, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    group.start(script("crasher", "print('boom'); sys.exit(3)", tmp_path, restart=True))
    exits: list[ChildExit] = []
    stop = threading.Event()

    def heard(gone: ChildExit) -> None:
        exits.append(gone)
        if len(exits) == 2:
            stop.set()

    while not stop.wait(0.02):
        for gone in group.poll():
            heard(gone)
    assert [(gone.name, gone.code, gone.restart_in_s) for gone in exits] == [("crasher", 3, 1.0), ("crasher", 3, 2.0)]
    assert exits[0].pid != exits[1].pid
    assert re.search(r"child_ended child=crasher pid=\d+ exit_code=3 restart_in_s=1\.0", caplog.text)
    assert "hunter2" not in caplog.text
    assert (tmp_path / "logs" / "crasher.log").read_text() == "boom\nboom\n"


def test_backoff_doubles_to_half_a_minute() -> None:
    assert [backoff_s(n) for n in (1, 2, 3, 4, 5, 6, 7, 5000)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_child_without_restart_stays_down_and_is_reported_once(
    group: ProcessGroup, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pid = group.start(script("once", "sys.exit(0)", tmp_path))
    exits: list[ChildExit] = []

    def has_exits() -> bool:
        exits.extend(group.poll())
        return bool(exits)

    until(has_exits)
    assert exits == [ChildExit("once", pid, 0, None)]
    assert f"child_ended child=once pid={pid} exit_code=0 restart=none" in caplog.text
    assert group.poll() == []
    assert group.pid("once") is None
    group.start(script("once", "sys.exit(0)", tmp_path))  # and may be started again


def test_the_log_of_the_previous_life_is_kept(group: ProcessGroup, tmp_path: Path) -> None:
    for word in ("one", "two", "three"):
        group.start(script("talker", f"print({word!r})", tmp_path))
        until(lambda: bool(group.poll()))
    assert (tmp_path / "logs" / "talker.log").read_text() == "three\n"
    assert (tmp_path / "logs" / "talker.log.1").read_text() == "two\n"


def test_a_missing_program_is_named(group: ProcessGroup, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no-such-program"):
        group.start(ChildSpec("ghost", ["no-such-program"], {"PATH": "/usr/bin"}, tmp_path))


def test_a_spec_does_not_show_its_environment(tmp_path: Path) -> None:
    assert "hunter2" not in repr(script("x", "", tmp_path))


# -- seen from a parent that is itself a process -----------------------------------------------------------------------

PARENT = """
import sys, threading
from pathlib import Path
from kalshi_platform.local.processes.process_group import ChildSpec, ProcessGroup
from kalshi_platform.local.processes.stop_signals import stop_on_signals
folder = Path(sys.argv[1])
stop = threading.Event()
if sys.argv[3] == "handle":
    stop_on_signals(stop)
with ProcessGroup(folder / "logs") as group:
    group.start(ChildSpec("dagster", [sys.executable, "-I", "-c", sys.argv[2]], {"PATH": "/usr/bin:/bin"}, folder,
                          stop_timeout_s=2))
    print("started", flush=True)
    while not stop.wait(0.5):
        group.poll()
"""


def start_parent(folder: Path, code: str, *, handle: bool = True, ignore_sigint: bool = False) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", PARENT, str(folder), code, "handle" if handle else "leave"]
    if ignore_sigint:  # what a shell does to background jobs
        argv = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *argv]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    return parent


@pytest.fixture
def reap() -> Iterator[list[subprocess.Popen[str]]]:
    parents: list[subprocess.Popen[str]] = []
    yield parents
    for parent in parents:
        parent.kill()
        parent.communicate()


def test_children_hear_sigint_although_the_parent_was_started_with_it_ignored(
    tmp_path: Path, reap: list[subprocess.Popen[str]]
) -> None:
    spec = script("x", GRACEFUL, tmp_path)
    parent = start_parent(tmp_path, spec.argv[-1], handle=False, ignore_sigint=True)
    reap.append(parent)
    child = pid_in(tmp_path / "up")
    os.kill(child, signal.SIGINT)
    until((tmp_path / "stopped").exists)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_parent_started_with_sigint_ignored_stops_on_signals(
    tmp_path: Path, reap: list[subprocess.Popen[str]], number: signal.Signals
) -> None:
    spec = script("x", GRACEFUL, tmp_path)
    parent = start_parent(tmp_path, spec.argv[-1], ignore_sigint=True)
    reap.append(parent)
    child = pid_in(tmp_path / "up")
    parent.send_signal(number)
    assert parent.wait(WAIT_S) == 0
    assert (tmp_path / "stopped").exists()
    assert not process_table.is_alive(child)


def test_kill_9_of_the_parent_leaves_no_descendant(tmp_path: Path, reap: list[subprocess.Popen[str]]) -> None:
    code = DAGSTER_SHAPED.format(worker_sigint="signal.SIG_IGN", then="time.sleep(600)")
    parent = start_parent(tmp_path, script("x", code, tmp_path).argv[-1])
    reap.append(parent)
    child, worker = pid_in(tmp_path / "up"), pid_in(tmp_path / "worker")
    parent.kill()
    until(lambda: not process_table.is_alive(child) and not process_table.is_alive(worker))


def reaper_of(parent: subprocess.Popen[str]) -> int:
    for pid in process_table.find_descendants({parent.pid}):
        if orphan_reaper.__name__ in psutil.Process(pid).cmdline():
            return pid
    raise AssertionError("no orphan reaper")


def test_the_next_start_removes_what_even_the_reaper_could_not(
    tmp_path: Path, reap: list[subprocess.Popen[str]]
) -> None:
    parent = start_parent(tmp_path, script("x", GRACEFUL, tmp_path).argv[-1])
    reap.append(parent)
    child = pid_in(tmp_path / "up")
    os.kill(reaper_of(parent), signal.SIGKILL)
    parent.kill()
    parent.wait()
    assert process_table.is_alive(child)

    elsewhere = ProcessGroup(tmp_path / "other" / "logs")
    with elsewhere:
        assert process_table.is_alive(child)  # another stack's children are none of its business
    with ProcessGroup(tmp_path / "logs"):
        assert not process_table.is_alive(child)
    assert (tmp_path / "stopped").exists()


def test_a_second_living_parent_is_refused(tmp_path: Path, reap: list[subprocess.Popen[str]]) -> None:
    parent = start_parent(tmp_path, script("x", GRACEFUL, tmp_path).argv[-1])
    reap.append(parent)
    child = pid_in(tmp_path / "up")
    with pytest.raises(AnotherWriter):
        ProcessGroup(tmp_path / "logs").open()
    assert process_table.is_alive(child)


def test_a_stopped_group_leaves_neither_reaper_nor_lock(tmp_path: Path) -> None:
    before = process_table.find_descendants({os.getpid()})
    for _ in range(2):
        with ProcessGroup(tmp_path / "logs") as group:
            group.start(script("gatherer", GRACEFUL, tmp_path))
    assert process_table.find_descendants({os.getpid()}) <= before


def test_one_event_for_every_ending_signal() -> None:
    saved = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for number in saved:
            stop = threading.Event()
            stop_on_signals(stop)
            signal.raise_signal(number)
            assert stop.wait(WAIT_S)
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)
