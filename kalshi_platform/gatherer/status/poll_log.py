"""Which resolution the polls of books achieved, in the table `snapshot_polls`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from kalshi_platform.gatherer.status.reports import BooksPolled
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database

# A day of polls, while the database is away.
_KEPT = 1_440


class PollLog:
    """Polls that are to be written. `note` may be called from any thread, `write` from one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[BooksPolled] = deque(maxlen=_KEPT)

    def note(self, report: BooksPolled) -> None:
        """Keep a poll for the next `write`; returns at once."""
        self._waiting.append(report)

    def write(self) -> None:
        """Write what waits. Raises DatabaseUnavailable; it then waits on."""
        polls = tuple(self._waiting)
        write_polls(self._database, polls)
        for poll in polls:
            # A full queue may have dropped it meanwhile.
            if self._waiting and self._waiting[0] is poll:
                self._waiting.popleft()


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
