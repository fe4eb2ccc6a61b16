"""Exponential backoff: how long to wait after each of several failures in a row. Pure: chance is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Span = TypeVar("Span", int, float)
"""A length of time in one unit: integers (nanoseconds) stay integers."""

_MOST_DOUBLINGS = 60


def exponential(base: Span, cap: Span, doublings: int) -> Span:
    """Return base × 2^doublings, at most `cap`, in the unit of both. Negative doublings count as none."""
    return min(cap, base * (1 << min(max(doublings, 0), _MOST_DOUBLINGS)))


def jittered(ceiling_s: float, random: Callable[[], float]) -> float:
    """Return a random wait between half and all of `ceiling_s`; `random` gives numbers in [0, 1)."""
    return ceiling_s * (0.5 + 0.5 * random())


class Backoff:
    """Jittered exponential delays: the n-th (from 0) is between half and all of min(cap, base × 2^n) seconds."""

    def __init__(self, base_s: float, cap_s: float, random: Callable[[], float]) -> None:
        """`random` gives numbers in [0, 1)."""
        self._base_s = base_s
        self._cap_s = cap_s
        self._random = random
        self._failures = 0

    def next(self) -> float:
        """Count one more failure and return the seconds to wait after it."""
        self._failures += 1
        return jittered(exponential(self._base_s, self._cap_s, self._failures - 1), self._random)

    def reset(self) -> None:
        """Begin at the base again, after a success."""
        self._failures = 0
