"""Limits how many dead letters are kept: a sample of each minute and reason; the rest is counted. Pure.

A flood of unreadable frames must not exhaust the memory, disk or database that data needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from kalshi_platform.gatherer.settings import DEAD_LETTERS_PER_MINUTE
from kalshi_platform.market.records import DeadLettersCounted

BYTES_PER_MINUTE = 8 * 1024 * 1024
"""Most payload bytes kept of each reason; the first letter is kept in any case."""
_NS_PER_MINUTE = 60 * 10**9
_MINUTES_KEPT = 2


@dataclass
class _Minute:
    kept: int = 0
    size: int = 0
    counted: int = 0
    reported: int = 0


class DeadLetterLimit:
    """Decides which letters are kept and counts the others; `counted_by` identifies it in the counts."""

    def __init__(self, counted_by: int, dead_letters_per_minute: int = DEAD_LETTERS_PER_MINUTE) -> None:
        self._counted_by = counted_by
        self._most = dead_letters_per_minute
        self._minutes: dict[tuple[int, str], _Minute] = {}
        self._latest = 0

    def admits(self, received_at_ns: int, reason: str, size: int) -> bool:
        """Return whether a letter of `size` bytes is kept; count it otherwise."""
        key = received_at_ns // _NS_PER_MINUTE, reason
        self._latest = key[0]
        minute = self._minutes.get(key)
        if minute is None:
            minute = self._minutes[key] = _Minute()
        if minute.kept == 0 or (minute.kept < self._most and minute.size + size <= BYTES_PER_MINUTE):
            minute.kept += 1
            minute.size += size
            return True
        minute.counted += 1
        return False

    def is_first_counted(self, received_at_ns: int, reason: str) -> bool:
        """Return whether exactly one letter of that minute and reason was counted so far."""
        return self._minutes[received_at_ns // _NS_PER_MINUTE, reason].counted == 1

    def counts(self) -> list[DeadLettersCounted]:
        """Return the totals of the minutes and reasons that changed since the last call."""
        changed = []
        for (minute, reason), each in self._minutes.items():
            if each.counted > each.reported:
                each.reported = each.counted
                changed.append(DeadLettersCounted(minute * 60_000_000, reason, self._counted_by, each.counted))
        # Times may go back a little. Older minutes are over, and so are later ones: the clock was set back since.
        self._minutes = {key: each for key, each in self._minutes.items() if abs(key[0] - self._latest) < _MINUTES_KEPT}
        return changed

    def copy(self) -> DeadLetterLimit:
        """Return a copy, for a commit that may fail."""
        other = DeadLetterLimit(self._counted_by, self._most)
        other._minutes = {key: _Minute(**vars(each)) for key, each in self._minutes.items()}
        other._latest = self._latest
        return other
