"""How many dead letters are kept: a sample of each minute and reason, the rest is counted. Pure.

A flood of frames that nobody can read must cost neither the memory, nor the disk, nor the database that data needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from kalshi_platform.market.records import DeadLettersCounted

DEAD_LETTERS_PER_MINUTE = 100
BYTES_PER_MINUTE = 8 * 1024 * 1024
"""Of each reason, however few letters that are; the first one is kept in any case."""
_NS_PER_MINUTE = 60 * 10**9
_MINUTES_KEPT = 2


@dataclass
class _Minute:
    kept: int = 0
    size: int = 0
    counted: int = 0
    told: int = 0


class DeadLetterLimit:
    """Says which letters are kept and remembers how many were not. `counted_by` names it in the counts."""

    def __init__(self, counted_by: int, dead_letters_per_minute: int = DEAD_LETTERS_PER_MINUTE) -> None:
        self._counted_by = counted_by
        self._most = dead_letters_per_minute
        self._minutes: dict[tuple[int, str], _Minute] = {}
        self._latest = 0

    def admits(self, received_at_ns: int, reason: str, size: int) -> bool:
        """Whether a letter of `size` bytes is kept; if not it is counted."""
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
        """Whether exactly one letter of that minute and reason was counted so far."""
        return self._minutes[received_at_ns // _NS_PER_MINUTE, reason].counted == 1

    def counts(self) -> list[DeadLettersCounted]:
        """What was counted of the minutes that changed since the last call, each in total."""
        told = []
        for (minute, reason), each in self._minutes.items():
            if each.counted > each.told:
                each.told = each.counted
                told.append(DeadLettersCounted(minute * 60_000_000, reason, self._counted_by, each.counted))
        # Times may go back a little; what is older is over. So is what is later: the clock was set back since.
        self._minutes = {key: each for key, each in self._minutes.items() if abs(key[0] - self._latest) < _MINUTES_KEPT}
        return told

    def copy(self) -> DeadLetterLimit:
        """The same as of now, for what may have to be taken back."""
        other = DeadLetterLimit(self._counted_by, self._most)
        other._minutes = {key: _Minute(**vars(each)) for key, each in self._minutes.items()}
        other._latest = self._latest
        return other
