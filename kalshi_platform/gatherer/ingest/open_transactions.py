"""Reports transactions that were left open in the gatherer's database.

While one is open, no row that was replaced or deleted since can be cleaned up, so tables and indexes grow and reads
slow down.
"""

from __future__ import annotations

from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database

ALARM = "open_transaction"
OPEN_FOR_S = 600.0
"""Age of a transaction that raises an alarm; no statement of the platform runs as long."""
_CHECK_INTERVAL_S = 60.0
_log = event_logger(__name__)


class OpenTransactions:
    """Checks once a minute for the oldest open transaction; reports each one once."""

    def __init__(
        self,
        name: str,
        database: Database,
        clock: Clock,
        on_alarm: Callable[[str, str], None],
        open_for_s: float = OPEN_FOR_S,
    ) -> None:
        """Set up the check; `on_alarm(kind, detail)` is called for each alarm."""
        self._name = name
        self._database = database
        self._clock = clock
        self._on_alarm = on_alarm
        self._open_for_s = open_for_s
        self._check_at = clock.monotonic()
        self._reported: str | None = None
        self._problem: str | None = None

    def check(self) -> None:
        """Check when a minute has passed; called often, from one thread. Raises DatabaseUnavailable."""
        now = self._clock.monotonic()
        if now < self._check_at:
            return
        with self._database.transaction() as transaction:
            row = transaction.fetch_one(
                queries.load("gatherer")["oldest_transaction"], {"open_for_s": self._open_for_s}
            )
        self._check_at = now + _CHECK_INTERVAL_S
        if row is None:
            self._reported = self._problem = None
            return
        holder, open_s, remedy = row
        self._problem = (
            f"{holder} keeps a transaction open for {open_s / 60:.0f} min in the timeseries database: nothing can be"
            f" cleaned up there meanwhile, and it slows down. End it: {remedy}"
        )
        if self._reported != holder:
            self._reported = holder
            self._on_alarm(ALARM, self._problem)
            _log.warning("open_transaction", gatherer=self._name, problem=self._problem)

    def problems(self) -> list[str]:
        """Return a sentence for `/healthz` about an open transaction, if there is one."""
        return [] if self._problem is None else [self._problem]
