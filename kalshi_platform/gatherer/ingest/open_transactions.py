"""Transactions that were left open in the gatherer's database: nothing that was replaced or deleted since can be
cleaned up there, so tables and indexes grow, and what reads them slows down.
"""

from __future__ import annotations

from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database

ALARM = "open_transaction"
OPEN_FOR_S = 600.0
"""No question of ours takes as long."""
_ASK_S = 60.0
_log = event_logger(__name__)


class OpenTransactions:
    """Asks once a minute for the oldest; tells each one once."""

    def __init__(
        self,
        name: str,
        database: Database,
        clock: Clock,
        on_alarm: Callable[[str], None],
        open_for_s: float = OPEN_FOR_S,
    ) -> None:
        """`on_alarm(kind)` counts."""
        self._name = name
        self._database = database
        self._clock = clock
        self._on_alarm = on_alarm
        self._open_for_s = open_for_s
        self._ask_at = clock.monotonic()
        self._told: str | None = None
        self._problem: str | None = None

    def ask(self) -> None:
        """From one thread, often. Raises DatabaseUnavailable."""
        now = self._clock.monotonic()
        if now < self._ask_at:
            return
        with self._database.transaction() as transaction:
            row = transaction.fetch_one(
                queries.load("gatherer")["oldest_transaction"], {"open_for_s": self._open_for_s}
            )
        self._ask_at = now + _ASK_S
        if row is None:
            self._told = self._problem = None
            return
        who, open_s, remedy = row
        self._problem = (
            f"{who} keeps a transaction open for {open_s / 60:.0f} min in the timeseries database: nothing can be"
            f" cleaned up there meanwhile, and it slows down. End it: {remedy}"
        )
        if self._told != who:
            self._told = who
            self._on_alarm(ALARM)
            _log.warning("open_transaction", gatherer=self._name, problem=self._problem)

    def problems(self) -> list[str]:
        """A clause for people where there is one."""
        return [] if self._problem is None else [self._problem]
