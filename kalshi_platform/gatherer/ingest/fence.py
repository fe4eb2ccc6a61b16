"""Restricts changes of the ledger to its owner, and to a database that holds what this process knows it to hold.

The process with the lock of its name is the owner (see lock.py). Each of its commits moves the journal's position in
the database, from where this process knows it to be. Where owner or position is another the commit is rolled back:
another process has the name, or the database was restored or failed over to an older state.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Transaction

NOT_OWNED = "name not held"
MOVED = "ledger moved"
WENT_BACK = "database_went_back"
LOST = "journal_lost"
START = Position(0, 0)
FIRST_SEGMENT = 1


class CommittedPosition(NamedTuple):
    """Says what a database holds of a journal: all blocks before `position`, by its batch `batch_no`.

    `journal_id` is None before the first commit. `segment_created_ns`: when the segment of the position was created, by
    its header, which tells it from another that got its number; None where that cannot be read.
    """

    batch_no: int
    journal_id: int | None
    position: Position
    segment_created_ns: int | None = None


class Fence:
    """Keeps owner and position of a ledger. For the ingest's thread, except `owner`."""

    def __init__(
        self,
        journal_id: int,
        owner: int | None = None,
        on_disowned: Callable[[], None] = lambda: None,
        segment_created_ns: Callable[[int], int | None] = lambda _: None,
    ) -> None:
        """Set up the fence; `owner` is the number that the lock wrote, None without one.

        `on_disowned()` is called when the database names another owner. `segment_created_ns(number)` returns when a
        segment of the journal was created, None where that cannot be read.
        """
        self.owner = owner
        self.journal_id = journal_id
        self.known = CommittedPosition(0, None, START)
        """What the database holds, by the last commit or `read`."""
        self._on_disowned = on_disowned
        self._segment_created_ns = segment_created_ns
        self._pending = self.known
        self._updated_at: datetime | None = None

    def read(self, transaction: Transaction) -> CommittedPosition:
        """Return what the database holds, once no commit is under way there.

        Raises DatabaseUnavailable when another process owns the ledger.
        """
        sql = queries.load("gatherer")
        counter = transaction.fetch_one(sql["lock_ledger"])
        assert counter is not None  # noqa: S101 - the migration inserts the counter's only row
        if counter[0] != self.owner:
            self._on_disowned()
            owned_by = "another process's" if counter[0] is not None else "nobody's"
            raise DatabaseUnavailable(
                f"its ledger is {owned_by}: nothing is written before the lock of the name is held", kind=NOT_OWNED
            )
        row = transaction.fetch_one(sql["journal_position"])
        assert row is not None  # noqa: S101 - likewise
        batch_no, journal_id, segment, offset, created_ns, self._updated_at = row
        return CommittedPosition(int(batch_no), journal_id, Position(int(segment), int(offset)), created_ns)

    def describe_loss(self, found: CommittedPosition, oldest: Position, end: Position) -> tuple[str, str] | None:
        """Return an alarm's kind and detail where the journal, from `oldest` to `end`, does not go on at `found`.

        That is so where blocks between the database's position and the oldest segment are gone, where the database
        continues another journal, where the journal ends before that position, and where its segment was lost and
        another has its number. Without any segment `oldest` is `end`.
        """
        stands = f"the database stands at {place(found.position)}, set at {self._updated_at:%Y-%m-%d %H:%M:%S} UTC"
        if found.journal_id not in (None, self.journal_id):
            return LOST, f"{stands}, in another journal: what that one has received since then is not in the database"
        created_ns = self._segment_created_ns(found.position.segment) if found.position.offset else None
        if created_ns is not None and found.segment_created_ns not in (None, created_ns):
            return LOST, f"{stands}, and another segment has that number now: what the former held may be lost"
        if found.position > end:
            return LOST, f"{stands}, and the journal ends at {place(end)}: what was received between them may be lost"
        if found.position < oldest and oldest.offset:
            # There is no segment at all.
            return LOST, f"{stands}, and the journal's folder is empty: what was received since then may be lost"
        if found.position.segment < oldest.segment and oldest.segment > FIRST_SEGMENT:
            if found.journal_id is None:
                stands = "the database is empty"
            return (
                WENT_BACK,
                f"{stands}, and the journal begins at {place(oldest)}: what was received before is not there",
            )
        return None

    def next_batch(self, transaction: Transaction, end: Position | None = None) -> int:
        """Reserve the next batch number and move the position to `end` (None: it stays); `confirm` must follow.

        Raises DatabaseUnavailable when another process owns the ledger, or its position is not the known one.
        """
        known = self.known
        # Before anything of the journal is committed the position belongs to no journal.
        journal_id = known.journal_id if end is None else self.journal_id
        position = known.position if end is None else end
        created_ns = known.segment_created_ns
        if created_ns is None or position.segment != known.position.segment or journal_id != known.journal_id:
            created_ns = self._segment_created_ns(position.segment)
        row = transaction.fetch_one(
            queries.load("gatherer")["next_own_batch"],
            {
                "owner": self.owner,
                "known": known.batch_no,
                "known_id": known.journal_id,
                "known_segment": known.position.segment,
                "known_offset": known.position.offset,
                "journal_id": journal_id,
                "segment": position.segment,
                "segment_created_ns": created_ns,
                "block_offset": position.offset,
            },
        )
        if row is None:
            raise DatabaseUnavailable("its ledger is not what the last commit left there", kind=MOVED)
        self._pending = CommittedPosition(int(row[0]), journal_id, position, created_ns)
        return int(row[0])

    def confirm(self) -> None:
        """Know the position of the last `next_batch`, whose commit succeeded."""
        self.known = self._pending


def place(position: Position) -> str:
    """Return a position as a person reads it."""
    return f"segment {position.segment}, byte {position.offset:,}"
