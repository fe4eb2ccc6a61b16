"""What a session does later: delays that grow with every failure, and actions that wait for them. Pure."""

from __future__ import annotations

from collections.abc import Callable

from kalshi_platform.backoff import exponential


class Retries:
    """Actions with a due time. Delays double from `base_ns` to `cap_ns`, and begin anew after a calm of ten caps."""

    def __init__(self, base_ns: int, cap_ns: int) -> None:
        self._base_ns = base_ns
        self._cap_ns = cap_ns
        self._failures = 0
        self._last_failure_ns = 0
        self._waiting: list[tuple[int, Callable[[], None]]] = []

    def delay_ns(self, now_ns: int, *, first_at_once: bool) -> int:
        """Note a failure and return how long to wait after it."""
        if now_ns - self._last_failure_ns > 10 * self._cap_ns:
            self._failures = 0
        self._last_failure_ns = now_ns
        self._failures += 1
        if first_at_once and self._failures == 1:
            return 0
        return exponential(self._base_ns, self._cap_ns, self._failures - 1)

    def after_failure(self, now_ns: int, action: Callable[[], None], *, first_at_once: bool = False) -> None:
        """Note a failure; do `action` after its delay."""
        delay_ns = self.delay_ns(now_ns, first_at_once=first_at_once)
        if delay_ns:
            self._waiting.append((now_ns + delay_ns, action))
        else:
            action()

    def after_cap(self, now_ns: int, action: Callable[[], None]) -> None:
        """Do `action` after the longest delay."""
        self._waiting.append((now_ns + self._cap_ns, action))

    def run_due(self, now_ns: int) -> None:
        """Do what is due."""
        due = [action for at, action in self._waiting if at <= now_ns]
        if due:
            self._waiting = [entry for entry in self._waiting if entry[0] > now_ns]
            for action in due:
                action()
