"""Measures how long a shortfall has lasted, and how much came within a minute, from occasional samples. Pure."""

from __future__ import annotations

from collections import deque

ENOUGH = 0.9
"""The share of what should be there that is no shortfall."""
_MINUTE_S = 60.0


class Shortfall:
    """Since when there has been less than `ENOUGH` of something, without a gain."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._best = 0

    def update(self, have: int, want: int, now_s: float) -> None:
        """Add the figures of now."""
        if have >= ENOUGH * want:
            self._since = None
        elif self._since is None or have >= self._best + max(1, want // 100):
            self._since, self._best = now_s, have

    def lasted_s(self, now_s: float) -> float | None:
        """Seconds; None while there is enough."""
        return None if self._since is None else round(now_s - self._since, 1)


class LastMinute:
    """How much a total grew within about the last minute."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, int]] = deque()

    def update(self, total: int, now_s: float) -> None:
        """Add the total of now."""
        self._totals.append((now_s, total))
        while len(self._totals) > 2 and self._totals[1][0] <= now_s - _MINUTE_S:
            self._totals.popleft()

    @property
    def growth(self) -> int:
        """0 before the second sample."""
        return self._totals[-1][1] - self._totals[0][1] if self._totals else 0
