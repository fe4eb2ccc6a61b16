"""Tracks how old things are by one observer's monotonic clock: since when each has been seen to be as it is. Pure.

Clocks of other hosts count at the first sight of a thing, and from then on only between two rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from kalshi_platform.clock import Clock

FUTURE_TOLERANCE_S = 2.0
"""What is dated further ahead than this says nothing about its age."""
AWAY_AFTER_S = 30.0
"""A pause between rounds (5 s apart) after which the observer counts as having been away."""
_FORGET_AFTER_S = 3 * 3600.0


@dataclass(slots=True)
class _Seen:
    """`since` and `first`: monotonic time at which this value, and the first one, came about; None: not known."""

    value: str
    since: float | None
    first: float | None
    round_at: float


class AgeTracker:
    """What one observer has seen. Call `start_round` before each round of observations; not for several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._previous: float | None = None
        self._now = clock.monotonic()
        self._supervising_since = self._now
        self._rounds = 0

    def start_round(self) -> None:
        """Begin a round."""
        now = self._clock.monotonic()
        self._previous = self._now if self._rounds else None
        if self._previous is None or now - self._previous > AWAY_AFTER_S:
            self._supervising_since = now
        self._now = now
        self._rounds += 1
        for key in [key for key, seen in self._seen.items() if now - seen.round_at > _FORGET_AFTER_S]:
            del self._seen[key]

    @property
    def supervising_s(self) -> float:
        """For how long there has been no long pause between rounds; 0 in the first one after a pause."""
        return self._now - self._supervising_since

    def age_s(self, key: str, value: str, dated_s: float = 0.0, *, is_listed: bool = False) -> float | None:
        """Return the seconds since `key` has had this `value`; None when not known, because it is dated in the future.

        `dated_s`: its age by another clock. It counts for a key that was never seen, and, for a changed value, as far
        as it lies between the last round and now. `is_listed`: the last round would have seen the key, had it existed.
        """
        now, seen = self._now, self._seen.get(key)
        if seen is not None and seen.value == value:
            seen.round_at = now
            return None if seen.since is None else now - seen.since
        earliest = seen.round_at if seen is not None else self._previous if is_listed else None
        since: float | None = now - max(0.0, dated_s)
        if earliest is not None:
            since = max(earliest, now - max(0.0, dated_s))
        elif dated_s < -FUTURE_TOLERANCE_S:
            since = None
        self._seen[key] = _Seen(value, since, seen.first if seen is not None else since, now)
        return None if since is None else now - since

    def lifetime_s(self, key: str) -> float | None:
        """Return the time from the first value of `key` to its present one; None when it has had only one."""
        seen = self._seen.get(key)
        if seen is None or seen.since is None or seen.first is None or seen.since == seen.first:
            return None
        return seen.since - seen.first
