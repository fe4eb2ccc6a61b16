"""How long records took from their receipt to their commit."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

BUCKETS_S: Sequence[float] = (0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0)
_KEPT = 600


class Lags(deque[float]):
    """The lags of the last commits in milliseconds, and how many of all since the start were how long.

    One thread appends, others read.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        super().__init__(maxlen=kept)
        self.number = 0
        self.total_s = 0.0
        self._up_to = [0] * (len(BUCKETS_S) + 1)

    def append(self, value: float) -> None:
        """Take one lag, in milliseconds."""
        super().append(value)
        self.number += 1
        self.total_s += value / 1e3
        self._up_to[bisect_left(BUCKETS_S, value / 1e3)] += 1

    def buckets(self) -> list[list[float]]:
        """[upper bound in seconds, number of lags up to it]; longer ones are in `number` alone."""
        found, below = [], 0
        for bound, here in zip(BUCKETS_S, self._up_to, strict=False):
            below += here
            found.append([bound, below])
        return found


def quantile(values: Iterable[float], share: float) -> float | None:
    """The value below which `share` of the values lie; None of none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
