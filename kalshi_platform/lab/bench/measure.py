"""CPU seconds, memory and quantiles. CPU figures come from /proc and are None where there is none."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: Iterable[int], *, with_collected: bool = False) -> float | None:
    """CPU seconds that living processes used so far; `with_collected` adds those of children that they have reaped."""
    if not PROC.is_dir():
        return None
    ticks = 0
    for pid in pids:
        try:
            # The name stands in brackets and may itself hold brackets and spaces: cut at the last one.
            fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(value) for value in fields[11 : 15 if with_collected else 13])
    return ticks / _TICKS_PER_S


def own_cpu_s() -> float:
    """CPU seconds of this process so far, all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def thread_cpu_s() -> dict[str, float]:
    """CPU seconds of every living thread but the main one, by name; threads of one name are added up."""
    found: dict[str, float] = {}
    for thread in threading.enumerate():
        if thread is threading.main_thread():
            continue  # it started the program, and only watches since
        try:
            text = (PROC / "self" / "task" / str(thread.native_id) / "schedstat").read_text(encoding="ascii")
        except OSError:
            continue
        found[thread.name] = found.get(thread.name, 0.0) + int(text.split()[0]) / 1e9
    return found


def peak_rss_mib() -> float:
    """The largest resident size that this process ever had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def weighted_quantiles(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.int64], shares: Iterable[float]
) -> list[float]:
    """The smallest value at or below which each share of the weight lies. Empty input gives zeros."""
    shares = list(shares)
    if not len(values):
        return [0.0] * len(shares)
    order = np.argsort(values)
    ordered, heap = values[order], np.cumsum(weights[order])
    places = np.searchsorted(heap, [share * heap[-1] for share in shares], side="left")
    return [float(ordered[min(place, len(ordered) - 1)]) for place in places]


def per_message_us(cpu: float | None, messages: int) -> float | None:
    """CPU seconds as microseconds per message."""
    return None if cpu is None or not messages else cpu / messages * 1e6
