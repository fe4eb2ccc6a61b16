"""Samples of a long run → does anything grow. Pure.

The first third is warm-up, at least five minutes, and is not judged: a gatherer's memory of what it saw last takes
minutes to fill. A line is laid through the rest by the median of all slopes between two samples (Theil–Sen), which
neither a single step nor a few outliers can bend; growth is that slope over the time judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

WARM_UP_SHARE, WARM_UP_S = 1 / 3, 300.0
MOST_MEMORY_MIB, MOST_MEMORY_SHARE = 4.0, 0.02
"""Memory may grow by the larger of the two: an allocator's noise. In 30 minutes 4 MiB are 12 MiB an hour."""
MOST_LAG_MS, MOST_LAG_SHARE = 50.0, 0.25
MOST_P99_MS, MOST_P99_SHARE = 250.0, 0.5
"""A backlog shows in the median; the p99 also tells what else the machine was busy with, and may do so more freely."""
MOST_BEHIND_MIB = 8.0
"""What is received within a commit or two."""
MOST_HANDLES = 2
"""A connection may be open for a moment."""
FEWEST_SAMPLES = 9


@dataclass(frozen=True, slots=True)
class Sample:
    """One gatherer at one moment, `at_s` seconds after the start. Lags are None before its first commit."""

    at_s: float
    pid: int
    rss_mib: float
    threads: int
    handles: int
    cpu_s: float
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    behind_mib: float
    followed: int


@dataclass(frozen=True, slots=True)
class Growth:
    """`median` and `worst` of a figure in the time judged; its slope `per_hour`, and as `growth` over that time."""

    median: float
    worst: float
    per_hour: float
    growth: float


@dataclass(frozen=True, slots=True)
class Flatness:
    """The judgement on one gatherer. Memory in MiB, lag (p99 of receive → commit) in ms."""

    memory: Growth
    lag: Growth
    threads: tuple[int, int]
    """Median in the middle third and in the last third of the run; likewise `handles`."""
    handles: tuple[int, int]
    failures: tuple[str, ...]


def judged(samples: Sequence[Sample]) -> list[Sample]:
    """The samples after the warm-up."""
    if not samples:
        return []
    begin, span = samples[0].at_s, samples[-1].at_s - samples[0].at_s
    judged_from = begin + max(WARM_UP_SHARE * span, WARM_UP_S)
    return [each for each in samples if each.at_s >= judged_from]


def growth(points: Sequence[tuple[float, float]]) -> Growth:
    """Lay a line through (seconds, value); all 0 for fewer than two points."""
    values = [value for _, value in points]
    slopes = [(right[1] - left[1]) / (right[0] - left[0]) for left, right in combinations(points, 2) if right > left]
    slope = median(slopes) if slopes else 0.0
    span_s = points[-1][0] - points[0][0] if points else 0.0
    return Growth(median(values) if values else 0.0, max(values, default=0.0), slope * 3_600, slope * span_s)


def judge(samples: Sequence[Sample]) -> Flatness:
    """Judge one gatherer's samples, in order of time."""
    rest = judged(samples)
    memory = growth([(each.at_s, each.rss_mib) for each in rest])
    lag = growth([(each.at_s, each.lag_p99_ms) for each in rest if each.lag_p99_ms is not None])
    middle, last = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    threads = (_median(each.threads for each in middle), _median(each.threads for each in last))
    handles = (_median(each.handles for each in middle), _median(each.handles for each in last))
    said = []
    if len(rest) < FEWEST_SAMPLES:
        said.append(f"only {len(rest)} samples after the warm-up: too few to judge")
    if len({each.pid for each in samples}) > 1:
        said.append("it ended and was started again")
    most = max(MOST_MEMORY_MIB, MOST_MEMORY_SHARE * memory.median)
    if memory.growth > most:
        said.append(
            f"memory grows: {memory.growth:+.1f} MiB in the time judged ({memory.per_hour:+.0f} MiB/h),"
            f" {most:.1f} MiB are allowed"
        )
    usual = growth([(each.at_s, each.lag_p50_ms) for each in rest if each.lag_p50_ms is not None])
    for name, line, least, share in (
        ("p50", usual, MOST_LAG_MS, MOST_LAG_SHARE), ("p99", lag, MOST_P99_MS, MOST_P99_SHARE),
    ):  # fmt: skip
        allowed = max(least, share * line.median)
        if line.growth > allowed:
            said.append(f"lag grows: {name} by {line.growth:+.0f} ms in the time judged, {allowed:.0f} ms are allowed")
    if not any(each.lag_p99_ms is not None for each in rest):
        said.append("it told no lag: nothing was committed")
    if threads[1] > threads[0]:
        said.append(f"threads grow: from {threads[0]} to {threads[1]}")
    if handles[1] > handles[0] + MOST_HANDLES:
        said.append(f"file handles grow: from {handles[0]} to {handles[1]}")
    if samples and samples[-1].behind_mib > MOST_BEHIND_MIB:
        said.append(f"{samples[-1].behind_mib:.1f} MiB of the journal are not in the database at the end")
    return Flatness(memory, lag, threads, handles, tuple(said))


def _median(values: Iterable[int]) -> int:
    found = sorted(values)
    return int(found[len(found) // 2]) if found else 0
