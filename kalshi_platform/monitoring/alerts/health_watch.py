"""Decides when a service's health is worth an alert: what lasts, not what passes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kalshi_platform.monitoring.alerts.alert import SERVICE_DEGRADED, SERVICE_UNHEALTHY

UNHEALTHY_FOR_S = 90.0
"""A reconnect or a restart takes less. Within two minutes of its beginning people know."""
DEGRADED_FOR_S = 600.0
"""A database that restarts, or a burst of dead letters, takes less."""
_AGAIN_S = 3_600.0
_SHOWN = 5


class HealthWatch:
    """Watches one service; `update` is called with every heartbeat, from one thread."""

    def __init__(self) -> None:
        self._unhealthy = _Lasting(UNHEALTHY_FOR_S)
        self._degraded = _Lasting(DEGRADED_FOR_S)

    def update(self, reasons: Sequence[str], troubles: Sequence[str], now_s: float) -> Iterator[tuple[str, str]]:
        """Yield kind and text of the alerts that are due; `now_s` is monotonic."""
        if self._unhealthy.is_due(bool(reasons), now_s):
            yield SERVICE_UNHEALTHY, _text(reasons, self._unhealthy.lasted_s(now_s))
        if self._degraded.is_due(bool(troubles), now_s):
            yield SERVICE_DEGRADED, _text(troubles, self._degraded.lasted_s(now_s))


class _Lasting:
    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._since_s: float | None = None
        self._due_s = 0.0

    def is_due(self, is_so: bool, now_s: float) -> bool:
        """Whether it has lasted long enough, and an hour since it was due last."""
        if not is_so:
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s, self._due_s = now_s, now_s + self._for_s
        if now_s < self._due_s:
            return False
        self._due_s = now_s + _AGAIN_S
        return True

    def lasted_s(self, now_s: float) -> float:
        return 0.0 if self._since_s is None else now_s - self._since_s


def _text(clauses: Sequence[str], lasted_s: float) -> str:
    more = len(clauses) - _SHOWN
    shown = [*clauses[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return f"for {lasted_s / 60:.1f} min: " + "\n".join(shown)
