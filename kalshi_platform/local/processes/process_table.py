"""Finds, watches and signals processes of this machine that need not be our children. The local stack's use of psutil.

A process that has ended but was not collected by its parent (a zombie) counts as ended everywhere. Processes that are
gone, or whose data their owner keeps from us, are passed over.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

from kalshi_platform.clock import SYSTEM_CLOCK, Clock

_ENDED = frozenset({psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})


def is_alive(pid: int) -> bool:
    """Return whether the process runs."""
    try:
        return psutil.Process(pid).status() not in _ENDED
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def find_process(pid: int) -> psutil.Process | None:
    """Return a handle that stays this process's when its pid is given to another; None when there is none."""
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def working_directory(pid: int) -> Path | None:
    """Return the process's working directory, or None where it cannot be read."""
    try:
        folder = psutil.Process(pid).cwd()
    except psutil.Error:
        return None
    return Path(folder) if folder else None


def find_by_working_directory(folder: Path) -> set[int]:
    """Return the living processes whose working directory is `folder` (all those of a PostgreSQL cluster)."""
    return {pid for pid in psutil.pids() if working_directory(pid) == folder and is_alive(pid)}


def find_by_environment(variable: str, matches: Callable[[str], bool]) -> set[int]:
    """Return the living processes that were started with an environment `variable` whose value satisfies `matches`.

    The environment is inherited, so this finds descendants whose ancestors have died and whose parent is now init.
    """
    found = set()
    for process in _all_processes():
        try:
            value = process.environ().get(variable)
        except (psutil.Error, OSError):
            continue
        if value is not None and matches(value) and is_alive(process.pid):
            found.add(process.pid)
    return found


def total_cpu_s(pids: Iterable[int]) -> float:
    """Return the processor time that living processes have used so far, in seconds."""
    total_s = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        total_s += times.user + times.system
    return total_s


def find_descendants(ancestors: Iterable[int]) -> set[int]:
    """Return the living children of some processes, their children, and so on, as far as none between has died."""
    children: dict[int, list[int]] = {}
    for process in _all_processes():
        try:
            children.setdefault(process.ppid(), []).append(process.pid)
        except psutil.Error:
            continue
    found: set[int] = set()
    waiting = list(ancestors)
    while waiting:
        fresh = [child for child in children.get(waiting.pop(), []) if child not in found]
        found.update(fresh)
        waiting += fresh
    return {child for child in found if is_alive(child)}


def group_of(pid: int) -> int | None:
    """Return the process group of a living process."""
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def find_group_members(group: int) -> set[int]:
    """Return the living processes of a process group."""
    return {pid for pid in psutil.pids() if group_of(pid) == group and is_alive(pid)}


def send_signal(pids: Iterable[int], signal_number: signal.Signals) -> None:
    """Signal each process; those that are gone or not ours are passed over."""
    for pid in pids:
        try:
            os.kill(pid, signal_number)
        except (ProcessLookupError, PermissionError):
            continue


def wait_until(
    condition: Callable[[], bool], timeout_s: float, *, clock: Clock = SYSTEM_CLOCK, interval_s: float = 0.05
) -> bool:
    """Poll `condition` until it holds or `timeout_s` passed; return whether it holds."""
    never = threading.Event()
    deadline = clock.monotonic() + timeout_s
    while not condition():
        if clock.monotonic() >= deadline:
            return False
        clock.wait(never, interval_s)
    return True


def _all_processes() -> Iterator[psutil.Process]:
    """Fresh handles: those that `psutil.process_iter` keeps may stand for an earlier process of the same pid."""
    for pid in psutil.pids():
        process = find_process(pid)
        if process is not None:
            yield process
