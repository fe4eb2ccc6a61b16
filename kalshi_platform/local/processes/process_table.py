"""Looking at processes that are not our children: through /proc, so only on Linux.

Elsewhere the scans return nothing, and callers rely on process groups and pid files alone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK, Clock

PROC = Path("/proc")


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that has ended but was not collected (a zombie) does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state = _stat_fields(pid)
    return not state or state[0] not in "ZX"


def working_directory(pid: int) -> Path | None:
    """Return the process's working directory, or None where it cannot be read."""
    try:
        return (PROC / str(pid) / "cwd").readlink()
    except OSError:
        return None


def working_in(folder: Path) -> set[int]:
    """Return the living processes whose working directory is `folder` (all those of a PostgreSQL cluster)."""
    return {pid for pid in _pids() if working_directory(pid) == folder and is_alive(pid)}


def with_environment(variable: str, matches: Callable[[str], bool]) -> set[int]:
    """Return the living processes that were started with an environment `variable` whose value satisfies `matches`.

    The environment is inherited, so this finds descendants whose ancestors have died and whose parent is now init.
    """
    prefix = f"{variable}=".encode()
    found = set()
    for pid in _pids():
        try:
            entries = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for entry in entries:
            if entry.startswith(prefix):
                if matches(entry[len(prefix) :].decode(errors="replace")) and is_alive(pid):
                    found.add(pid)
                break
    return found


def started_at(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot: with the pid it names one process for ever."""
    fields = _stat_fields(pid)
    return int(fields[19]) if len(fields) > 19 else None


def cpu_s(pids: Iterable[int]) -> float:
    """Return the processor time that living processes have used so far, in seconds."""
    fields = [_stat_fields(pid) for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields if len(each) > 12) / os.sysconf("SC_CLK_TCK")


def descendants(ancestors: Iterable[int]) -> set[int]:
    """Return the living children of some processes, their children, and so on, as far as none between has died."""
    children: dict[int, list[int]] = {}
    for candidate in _pids():
        fields = _stat_fields(candidate)
        if len(fields) > 1:
            children.setdefault(int(fields[1]), []).append(candidate)
    found: set[int] = set()
    waiting = list(ancestors)
    while waiting:
        fresh = [child for child in children.get(waiting.pop(), []) if child not in found]
        found.update(fresh)
        waiting += fresh
    return {child for child in found if is_alive(child)}


def process_group(pid: int) -> int | None:
    """Return the process group of a living process."""
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def group_members(group: int) -> set[int]:
    """Return the living processes of a process group."""
    return {pid for pid in _pids() if process_group(pid) == group and is_alive(pid)}


def send(pids: Iterable[int], signal_number: signal.Signals) -> None:
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


def _pids() -> list[int]:
    try:
        return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return []


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name: state, parent, group, session, …"""
    try:
        # The name stands in brackets and may itself contain brackets and spaces: cut at the last one.
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
