"""How fast to ask and how long to wait after a failure. Pure: time and chance are given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable


class TokenBucket:
    """Tokens that refill continuously. `take` always grants and says how long to wait first, so that callers queue
    in the order in which they asked; a caller that gives up need not tell."""

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


class Backoff:
    """Jittered exponential delays: the n-th (from 0) is between half and all of min(cap, base × 2^n) seconds."""

    def __init__(self, base_s: float, cap_s: float, random: Callable[[], float]) -> None:
        """`random` gives numbers in [0, 1)."""
        self._base_s = base_s
        self._cap_s = cap_s
        self._random = random
        self._failures = 0

    def next(self) -> float:
        """Return the seconds to wait after one more failure."""
        ceiling = min(self._cap_s, self._base_s * float(1 << min(self._failures, 60)))
        self._failures += 1
        return ceiling * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """It worked: begin at the base again."""
        self._failures = 0


class PacedCommands:
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

    def take_due(self, now: float) -> list[bytes]:
        """Give up the commands that may be sent now."""
        due: list[bytes] = []
        # What went too early is made up for by the next ones: a bucket below zero lets nothing through.
        while self._waiting and self._commands.available(now) >= 1.0 and self._bytes.available(now) > 0.0:
            command = self._waiting.popleft()
            self._commands.take(1.0, now)
            self._bytes.take(len(command), now)
            due.append(command)
        return due
