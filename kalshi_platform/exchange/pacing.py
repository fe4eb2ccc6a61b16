"""Limits how fast requests and commands are sent. Pure: the caller passes the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class TokenBucket:
    """Counts tokens that refill continuously.

    `spend` always grants the tokens and returns how long to wait before using them, so that callers are served in the
    order of their calls. Tokens of a caller that gives up are not returned.
    """

    def __init__(self, refill_per_s: float, capacity: float, now: float) -> None:
        """Start with a full bucket; `now` is a monotonic time in seconds."""
        self._refill_per_s = refill_per_s
        self._capacity = capacity
        self._tokens = capacity
        self._at = now

    def resize(self, refill_per_s: float, capacity: float, now: float) -> None:
        """Replace the limits from now on."""
        self._settle(now)
        self._refill_per_s = refill_per_s
        self._capacity = capacity
        self._tokens = min(self._tokens, capacity)

    def spend(self, cost: float, now: float) -> float:
        """Spend `cost` tokens and return the seconds to wait before using them (0 while the bucket covers it)."""
        self._settle(now)
        self._tokens -= cost
        return max(0.0, -self._tokens / self._refill_per_s)

    def drain(self, now: float) -> None:
        """Empty the bucket, because the other side reported that the budget is spent."""
        self._settle(now)
        self._tokens = min(self._tokens, 0.0)

    def available(self, now: float) -> float:
        """Return the tokens that can be spent without waiting (negative: already granted)."""
        self._settle(now)
        return self._tokens

    def _settle(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._refill_per_s)
            self._at = now


class RateLimitedQueue:
    """Queues the commands of one connection, limited to a number of commands and of bytes a second.

    A second's worth may go at once, and one command more: a command that exceeds the rest of a second goes anyway, and
    those behind it wait until the bucket has refilled.
    """

    def __init__(self, commands_per_s: float, bytes_per_s: float, now: float) -> None:
        """Start with an empty queue; `now` is a monotonic time in seconds."""
        self._waiting: deque[bytes] = deque()
        self._commands = TokenBucket(commands_per_s, max(1.0, commands_per_s), now)
        self._bytes = TokenBucket(bytes_per_s, max(1.0, bytes_per_s), now)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, commands: Iterable[bytes]) -> None:
        """Append commands to the queue."""
        self._waiting.extend(commands)

    def pop_ready(self, now: float) -> list[bytes]:
        """Remove and return the commands that may be sent now."""
        due: list[bytes] = []
        # A command that went too early delays the next ones: a bucket below zero admits nothing.
        while self._waiting and self._commands.available(now) >= 1.0 and self._bytes.available(now) > 0.0:
            command = self._waiting.popleft()
            self._commands.spend(1.0, now)
            self._bytes.spend(len(command), now)
            due.append(command)
        return due
