"""How far two clocks are apart, as bounds that are certain. Pure.

An offset is ours minus the other one's: positive means that this machine's clock is ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CLOCK_TOLERANCE_S = 2.0
"""Clocks further apart are alarmed: signatures are refused at some seconds, and what is said to be covered keeps a
margin of one second between the exchange's times."""


class Offset(NamedTuple):
    """The offset lies between these, in seconds."""

    low_s: float
    high_s: float

    @property
    def certain_s(self) -> float:
        """The part of the offset that is certain: its bound that is nearer to 0, or 0 if that lies between them."""
        return max(self.low_s, 0.0) + min(self.high_s, 0.0)

    @property
    def middle_s(self) -> float:
        """The best guess."""
        return (self.low_s + self.high_s) / 2

    @property
    def is_large(self) -> bool:
        """Whether it is certainly beyond CLOCK_TOLERANCE_S."""
        return abs(self.certain_s) > CLOCK_TOLERANCE_S

    def told(self, other: str) -> str:
        """A clause for people; `other` is whose clock it was compared with ("the exchange's")."""
        if not self.is_large:
            return f"this machine's clock agrees with {other}"
        direction = "ahead of" if self.middle_s > 0 else "behind"
        return f"this machine's clock is {abs(self.middle_s):.0f} s {direction} {other}: set it right (NTP)"


def offset_of(asked_at_ns: int, answered_at_ns: int, other_ns: int, resolution_ns: int = 0) -> Offset:
    """The offset by one question: between our two times the other clock showed `other_ns`, or up to a resolution more.

    An HTTP date has a resolution of one second, cut off.
    """
    return Offset((asked_at_ns - other_ns - resolution_ns) / 1e9, (answered_at_ns - other_ns) / 1e9)


def combined(offsets: Sequence[Offset]) -> Offset | None:
    """What several questions say together, oldest first; where they disagree (a clock was set), the newest hold."""
    if not offsets:
        return None
    low_s, high_s = offsets[-1]
    for offset in reversed(offsets[:-1]):
        if max(low_s, offset.low_s) > min(high_s, offset.high_s):
            break
        low_s, high_s = max(low_s, offset.low_s), min(high_s, offset.high_s)
    return Offset(low_s, high_s)


class Correction:
    """By how many seconds moments of our clock are to be put back, so that they are moments of the other one.

    Nothing while the clocks agree. It changes only when what is measured does by more than the tolerance (somebody has
    set a clock), so that moments that were corrected keep their order.
    """

    def __init__(self) -> None:
        self._seconds = 0.0

    def follow(self, offset: Offset | None) -> float:
        """Take what is measured now and return the correction."""
        if offset is not None and abs(offset.middle_s - self._seconds) > CLOCK_TOLERANCE_S:
            self._seconds = offset.middle_s if offset.is_large else 0.0
        return self._seconds
