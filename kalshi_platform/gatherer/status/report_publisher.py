"""Passes reports on to the host, and writes those of polls to the table `snapshot_polls`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from kalshi_platform.gatherer.status.reports import BooksPolled, Report
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database

# A day of polls, while the database is unavailable.
_POLLS_KEPT = 1_440
_log = event_logger(__name__)


class ReportPublisher:
    """Publishes reports, and keeps the polls that are not written yet."""

    def __init__(self, gatherer: str, on_report: Callable[[Report], None] | None) -> None:
        """Set up the publisher; the host's `on_report` is called from several threads and must not block."""
        self._gatherer = gatherer
        self._on_report = on_report
        self._polls: deque[BooksPolled] = deque(maxlen=_POLLS_KEPT)

    def publish(self, report: Report) -> None:
        """Pass a report on, from any thread; errors of the host are logged."""
        if isinstance(report, BooksPolled):
            self._polls.append(report)
        if self._on_report is not None:
            try:
                self._on_report(report)
            except Exception:  # noqa: BLE001 - a host that fails must not stop capture
                _log.warning("report_not_delivered", gatherer=self._gatherer, exc_info=True)

    def write_polls(self, database: Database) -> None:
        """Write the waiting polls, from one thread. Raises DatabaseUnavailable; they are then kept."""
        polls = tuple(self._polls)
        write_polls(database, polls)
        for poll in polls:
            # A full queue may have dropped it meanwhile.
            if self._polls and self._polls[0] is poll:
                self._polls.popleft()


def write_polls(database: Database, polls: Sequence[BooksPolled]) -> None:
    """Write a row per poll; one that is there already stays. Raises DatabaseUnavailable."""
    if not polls:
        return
    values = [
        (
            poll.minute,
            poll.started_at,
            poll.finished_at,
            poll.subscribed,
            poll.asked,
            poll.stored,
            poll.failed,
            poll.requests,
            poll.tokens,
            poll.oldest_age_s,
        )
        for poll in polls
    ]
    with database.transaction() as transaction:
        transaction.execute_values(queries.load("gatherer")["snapshot_polls"], values)
