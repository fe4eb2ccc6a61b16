"""Measures CPU seconds and memory of processes and threads, and computes quantiles."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil


def cpu_s(pids: Iterable[int], *, with_collected: bool = False) -> float:
    """CPU seconds that living processes used so far; `with_collected` adds those of children that they have reaped."""
    total_s = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        total_s += times.user + times.system
        if with_collected:
            total_s += times.children_user + times.children_system
    return total_s


def own_cpu_s() -> float:
    """CPU seconds of this process so far, all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def thread_cpu_s() -> dict[str, float]:
    """CPU seconds of every living thread but the main one, by name; threads of one name are added up."""
    used = {each.id: each.user_time + each.system_time for each in psutil.Process().threads()}
    found: dict[str, float] = {}
    for thread in threading.enumerate():
        # The main thread started the program, and only watches since.
        if thread is not threading.main_thread() and thread.native_id in used:
            found[thread.name] = found.get(thread.name, 0.0) + used[thread.native_id]
    return found


def peak_rss_mib() -> float:
    """The largest resident size that this process ever had, in MiB; of the program alone, not of what started it."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands ru_maxrss on from the process that forked: a small child of a big parent seems big.
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
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
