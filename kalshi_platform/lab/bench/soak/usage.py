"""Samples what a process uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """Resident memory now and at its peak, threads, open file handles, CPU seconds since the process began."""

    rss_mib: float
    peak_rss_mib: float
    threads: int
    handles: int
    cpu_s: float


def usage(pid: int) -> Usage | None:
    """Return what a process uses; None when there is no such process, or its owner keeps that from us."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times, rss_bytes = process.cpu_times(), process.memory_info().rss
            if not rss_bytes:
                return None  # it has ended, and waits for its parent
            return Usage(
                rss_mib=rss_bytes / _MIB,
                peak_rss_mib=_peak_rss_mib(pid) or rss_bytes / _MIB,
                threads=process.num_threads(),
                handles=process.num_fds(),
                cpu_s=times.user + times.system,
            )
    except psutil.Error:
        return None


def _peak_rss_mib(pid: int) -> float | None:
    """The largest resident size ever, which Linux counts and psutil does not read; None where there is no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split(maxsplit=1)[0]) / 1024
    return None
