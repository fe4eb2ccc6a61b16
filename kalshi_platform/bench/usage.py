"""What a process uses, as Linux counts it in /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Resident memory now and at its peak, threads, open file handles, CPU seconds since the process began."""

    rss_mib: float
    peak_rss_mib: float
    threads: int
    handles: int
    cpu_s: float


def usage(pid: int) -> Usage | None:
    """Return what a process uses; None when there is no such process (or it is somebody else's)."""
    folder = Path("/proc") / str(pid)
    try:
        lines = (folder / "status").read_text(encoding="ascii", errors="replace").splitlines()
        # The program's name, in brackets, may hold anything.
        counters = (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        handles = len(os.listdir(folder / "fd"))  # noqa: PTH208 - only their number is wanted
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if "VmRSS" not in fields:
        return None  # it has ended, and waits for its parent
    return Usage(
        rss_mib=_mib(fields["VmRSS"]),
        peak_rss_mib=_mib(fields["VmHWM"]),
        threads=int(fields["Threads"]),
        handles=handles,
        cpu_s=(int(counters[11]) + int(counters[12])) / _TICKS_PER_S,
    )


def _mib(text: str) -> float:
    return int(text.split(maxsplit=1)[0]) / 1024
