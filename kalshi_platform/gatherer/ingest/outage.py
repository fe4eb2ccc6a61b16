"""Decides when a failing database is tried again, and logs each kind of failure once, not at every attempt."""

from __future__ import annotations

from kalshi_platform.backoff import exponential
from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable, StatementRejected
from kalshi_platform.gatherer.ingest.ingest_counters import IngestCounters
from kalshi_platform.monitoring.event_log import event_logger

_FIRST_RETRY_S = 0.2
_LOG_AGAIN_S = 300.0
_log = event_logger(__name__)


class Outage:
    """Counts attempts that failed in a row, as a circuit breaker. One thread writes it, any may read."""

    def __init__(self, name: str, clock: Clock, counters: IngestCounters, retry_max_s: float) -> None:
        self.failures = 0
        self.retry_at = 0.0
        """Monotonic time of the next attempt."""
        self._name = name
        self._clock = clock
        self._counters = counters
        self._retry_max_s = retry_max_s
        self._since = 0.0
        self._logged_at: dict[str, float] = {}

    def is_due(self) -> bool:
        """Return whether the database may be tried (again)."""
        return self._clock.monotonic() >= self.retry_at

    def wait_s(self) -> float:
        """Return the seconds until the next attempt."""
        return max(0.0, self.retry_at - self._clock.monotonic())

    def failed(self, error: Exception) -> None:
        """Count a failed attempt and delay the next; log a new kind of failure at once, a known one rarely."""
        now = self._clock.monotonic()
        kind, reason = _describe(error)
        counters = self._counters
        if self.failures == 0:
            self._since = now
            counters.outages += 1
            self._logged_at = {}
        if kind not in self._logged_at:
            _log.warning(
                "writes_failing", gatherer=self._name, kind=kind, error=reason, consequence="frames wait in the journal"
            )
            self._logged_at[kind] = now
        elif now - self._logged_at[kind] >= _LOG_AGAIN_S:
            _log.warning(
                "writes_still_failing",
                gatherer=self._name,
                kind=kind,
                for_s=round(now - self._since),
                attempts=self.failures + 1,
                error=reason,
            )
            self._logged_at[kind] = now
        self.failures += 1
        counters.database_error, counters.database_failure = reason, kind
        self.retry_at = now + exponential(_FIRST_RETRY_S, self._retry_max_s, self.failures - 1)

    def over(self) -> None:
        """Reset after a write that the database accepted."""
        if self.failures:
            lasted_s = self._clock.monotonic() - self._since
            _log.info("writes_resumed", gatherer=self._name, after_s=round(lasted_s, 1))
        self.failures = 0
        self.retry_at = 0.0
        self._counters.database_error = self._counters.database_failure = None


def _describe(error: Exception) -> tuple[str, str]:
    """Return the kind and the full text of a failure."""
    if isinstance(error, DatabaseUnavailable):
        return error.kind, str(error)
    if isinstance(error, StatementRejected):
        return "refused", f"{error}: a right was taken away, or the schema is another than this version's"
    return type(error).__name__, f"{type(error).__name__}: {error}"
