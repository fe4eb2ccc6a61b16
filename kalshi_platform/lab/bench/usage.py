"""What a process uses, as Linux counts it in /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass

from kalshi_platform.lab.bench.measure import PROC, cpu_s


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
    folder = PROC / str(pid)
    try:
        lines = (folder / "status").read_text(encoding="ascii", errors="replace").splitlines()
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
        cpu_s=cpu_s([pid]) or 0.0,
    )


def _mib(text: str) -> float:
    return int(text.split(maxsplit=1)[0]) / 1024
