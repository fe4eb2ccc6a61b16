"""Measures how fast totals grow between two updates. Pure."""

from __future__ import annotations

from collections.abc import Mapping

_SHORTEST_S = 1.0


class RateMeter:
    """Growth per second of named totals, measured between updates that are at least a second apart. For one thread."""

    def __init__(self, now_s: float) -> None:
        self._at = now_s
        self._totals: dict[str, int] = {}
        self.per_s: Mapping[str, float] | None = None
        """As of the last update, None before it; replaced, never changed."""

    def update(self, totals: Mapping[str, int], now_s: float) -> None:
        """Measure up to the totals of now; a name that is new counted from 0."""
        passed_s = now_s - self._at
        if passed_s < _SHORTEST_S:
            return
        self.per_s = {name: round((total - self._totals.get(name, 0)) / passed_s, 1) for name, total in totals.items()}
        self._at, self._totals = now_s, dict(totals)
