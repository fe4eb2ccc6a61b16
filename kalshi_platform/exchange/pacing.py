"""How fast requests and commands may be sent. Pure: the time is given."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class TokenBucket:
    """Tokens that refill continuously. `take` always grants and says how long to wait first, so that callers queue
    in the order in which they asked; a caller that gives up need not tell.
    """

    def __init__(self, refill_per_s: float, capacity: float, now: float) -> None:
        """`now` is a monotonic time in seconds; the bucket starts full."""
        self._refill_per_s = refill_per_s
        self._capacity = capacity
        self._tokens = capacity
        self._at = now

    def resize(self, refill_per_s: float, capacity: float, now: float) -> None:
        """Other limits hold from now on."""
        self._settle(now)
        self._refill_per_s = refill_per_s
        self._capacity = capacity
        self._tokens = min(self._tokens, capacity)

    def take(self, cost: float, now: float) -> float:
        """Spend `cost` tokens and return the seconds to wait before using them (0 while the bucket covers it)."""
        self._settle(now)
        self._tokens -= cost
        return max(0.0, -self._tokens / self._refill_per_s)

    def drain(self, now: float) -> None:
        """The other side says the budget is spent: start from empty."""
        self._settle(now)
        self._tokens = min(self._tokens, 0.0)

    def available(self, now: float) -> float:
        """Tokens that can be spent without waiting (negative: already promised)."""
        self._settle(now)
        return self._tokens

    def _settle(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._refill_per_s)
            self._at = now


class RateLimitedQueue:
    """Commands on their way to one connection: in order, and no faster than a number of commands and of bytes a second.

    A second's worth may go at once, and one command more: what is too large for the rest of a second goes anyway, and
    those behind it wait for as long as it takes.
    """

    def __init__(self, commands_per_s: float, bytes_per_s: float, now: float) -> None:
        """`now` is a monotonic time in seconds."""
        self._waiting: deque[bytes] = deque()
        self._commands = TokenBucket(commands_per_s, max(1.0, commands_per_s), now)
        self._bytes = TokenBucket(bytes_per_s, max(1.0, bytes_per_s), now)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, commands: Iterable[bytes]) -> None:
        """Put commands behind those that wait."""
        self._waiting.extend(commands)

    def pop_ready(self, now: float) -> list[bytes]:
        """Give up the commands that may be sent now."""
        due: list[bytes] = []
        # What went too early is made up for by the next ones: a bucket below zero lets nothing through.
        while self._waiting and self._commands.available(now) >= 1.0 and self._bytes.available(now) > 0.0:
            command = self._waiting.popleft()
            self._commands.take(1.0, now)
            self._bytes.take(len(command), now)
            due.append(command)
        return due
