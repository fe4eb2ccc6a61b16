"""How old things are, by the observer's own monotonic clock: when each was first seen to be as it is.

Clocks of other hosts are believed once, at the first sight of a thing, and from then on only between two looks.
"""

from __future__ import annotations

from dataclasses import dataclass

from kalshi_platform.clock import Clock

FUTURE_TOLERANCE_S = 2.0
"""What is dated further ahead than this says nothing about its age."""
AWAY_AFTER_S = 30.0
_FORGET_AFTER_S = 3 * 3600.0


@dataclass(slots=True)
class _Sight:
    """`born` and `first`: monotonic time at which this value, and the first one, came about; None: not known."""

    value: str
    born: float | None
    first: float | None
    looked: float


class Sightings:
    """What one observer has seen. Call `begin` before each round of questions; not for several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, _Sight] = {}
        self._previous: float | None = None
        self._now = clock.monotonic()
        self._attentive_since = self._now
        self._rounds = 0

    def begin(self) -> None:
        """Begin a round."""
        now = self._clock.monotonic()
        self._previous = self._now if self._rounds else None
        if self._previous is None or now - self._previous > AWAY_AFTER_S:
            self._attentive_since = now
        self._now = now
        self._rounds += 1
        for key in [key for key, sight in self._seen.items() if now - sight.looked > _FORGET_AFTER_S]:
            del self._seen[key]

    @property
    def attentive_s(self) -> float:
        """For how long there has been no long pause between rounds; 0 in the first one after a pause."""
        return self._now - self._attentive_since

    def age_s(self, key: str, value: str, told_s: float = 0.0, *, is_listed: bool = False) -> float | None:
        """Seconds since `key` has had this `value`; None when that cannot be known (it is dated in the future).

        `told_s`: what a clock says. It counts for a key that was never seen, and, for a changed value, as far as it
        lies between the last look and now. `is_listed`: the key would have been seen in the last round, had it existed.
        """
        now, sight = self._now, self._seen.get(key)
        if sight is not None and sight.value == value:
            sight.looked = now
            return None if sight.born is None else now - sight.born
        since = sight.looked if sight is not None else self._previous if is_listed else None
        born: float | None = now - max(0.0, told_s)
        if since is not None:
            born = max(since, now - max(0.0, told_s))
        elif told_s < -FUTURE_TOLERANCE_S:
            born = None
        self._seen[key] = _Sight(value, born, sight.first if sight is not None else born, now)
        return None if born is None else now - born

    def lived_s(self, key: str) -> float | None:
        """From the first value of `key` to its present one; None when it was never seen with another one."""
        sight = self._seen.get(key)
        if sight is None or sight.born is None or sight.first is None or sight.born == sight.first:
            return None
        return sight.born - sight.first
