"""Measures the offset of two clocks as certain bounds. Pure.

An offset is ours minus the other one's: positive means that this machine's clock is ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CLOCK_TOLERANCE_S = 2.0
"""Clocks further apart raise an alarm.

Signatures are refused at some seconds, and claims of coverage assume a margin of one second between the exchange's
times.
"""


class Offset(NamedTuple):
    """Bounds the offset, in seconds."""

    low_s: float
    high_s: float

    @property
    def certain_s(self) -> float:
        """Return the certain part of the offset: the bound nearer to 0, or 0 if that lies between the bounds."""
        return max(self.low_s, 0.0) + min(self.high_s, 0.0)

    @property
    def middle_s(self) -> float:
        """Return the best estimate: the middle of the bounds."""
        return (self.low_s + self.high_s) / 2

    @property
    def is_large(self) -> bool:
        """Return whether the offset is certainly beyond CLOCK_TOLERANCE_S."""
        return abs(self.certain_s) > CLOCK_TOLERANCE_S

    def describe(self, other: str) -> str:
        """Return a clause for messages; `other` names the clock of the comparison ("the exchange's")."""
        if not self.is_large:
            return f"this machine's clock agrees with {other}"
        direction = "ahead of" if self.middle_s > 0 else "behind"
        return f"this machine's clock is {abs(self.middle_s):.0f} s {direction} {other}: set it right (NTP)"


def offset_of(requested_at_ns: int, answered_at_ns: int, other_ns: int, resolution_ns: int = 0) -> Offset:
    """Return the offset by one request: between our two times the other clock showed `other_ns`.

    The other clock may have shown up to `resolution_ns` more: an HTTP date is cut to one second.
    """
    return Offset((requested_at_ns - other_ns - resolution_ns) / 1e9, (answered_at_ns - other_ns) / 1e9)


def combined(offsets: Sequence[Offset]) -> Offset | None:
    """Return the bounds that all offsets (oldest first) agree on; after a contradiction the newer ones count.

    Offsets contradict each other when a clock was set between them.
    """
    if not offsets:
        return None
    low_s, high_s = offsets[-1]
    for offset in reversed(offsets[:-1]):
        if max(low_s, offset.low_s) > min(high_s, offset.high_s):
            break
        low_s, high_s = max(low_s, offset.low_s), min(high_s, offset.high_s)
    return Offset(low_s, high_s)


class Correction:
    """Keeps the seconds to subtract from times of our clock, to give times of the other one.

    It is 0 while the clocks agree, and changes only when the measured offset changes by more than the tolerance (a
    clock was set), so that corrected times keep their order.
    """

    def __init__(self) -> None:
        self._seconds = 0.0

    def update(self, offset: Offset | None) -> float:
        """Apply the offset measured now; return the correction in seconds."""
        if offset is not None and abs(offset.middle_s - self._seconds) > CLOCK_TOLERANCE_S:
            self._seconds = offset.middle_s if offset.is_large else 0.0
        return self._seconds
