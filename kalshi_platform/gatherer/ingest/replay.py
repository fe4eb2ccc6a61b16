"""Writes the spool to the database: oldest first, in batches, with corrupt ranges recorded where they stood."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.gatherer.ingest.backlog import Backlog
from kalshi_platform.gatherer.ingest.batch_writer import BatchRefused, BatchWriter
from kalshi_platform.gatherer.ingest.outage import Outage
from kalshi_platform.gatherer.ingest.puts import memory_of
from kalshi_platform.gatherer.ingest.writer_counters import WriterCounters
from kalshi_platform.gatherer.journal.spool_file import CorruptRange
from kalshi_platform.market.records import Record
from kalshi_platform.storage.sqlstate import STATEMENT_TIMEOUT


class Replay:
    """Writes the records on disk, from the writer's thread."""

    def __init__(
        self,
        backlog: Backlog,
        committer: BatchWriter,
        outage: Outage,
        counters: WriterCounters,
        batch_rows: tuple[int, int],
        batch_bytes: int,
        own_sessions: Callable[[], Sequence[int]],
        former_file: int | None,
        wait: Callable[[], bool],
    ) -> None:
        """Set up the replay.

        `batch_rows`: rows of the first batches and of the largest; they grow as long as the spool does not run empty,
        up to about `batch_bytes` of memory. `former_file`: the last file of the spool that a former process wrote.
        `wait` spills new records until the next attempt is due, and returns False when it is time to stop.
        """
        self._backlog = backlog
        self._committer = committer
        self._outage = outage
        self._counters = counters
        self._least_rows, self._most_rows = batch_rows
        self._rows = self._least_rows
        self._most_bytes = batch_bytes
        self._own_sessions = own_sessions
        self._former_file = former_file
        self._wait = wait

    def step(self) -> None:
        """Write one batch; while the database is unavailable, retry it from memory, and newer records go to disk.

        Raises other errors than DatabaseUnavailable; the batch is then read again, after `Spool.rewind`.
        """
        batch, size, damage = self._next_batch()
        self._backlog.replaying(len(batch), size)
        try:
            if batch and not self._retry_until_written(lambda: self._commit(batch)):
                return
            self._counters.replayed += len(batch)
            if damage is not None and not self._retry_until_written(lambda: self._declare(damage)):
                return
            self._backlog.spool.drop_read()
            # Large commits cost less per row: with small ones the replay might never catch up with a busy exchange.
            self._rows = self._least_rows if self._backlog.spool.is_empty() else min(self._most_rows, 2 * self._rows)
        finally:
            self._backlog.replaying(0, 0)
        self._backlog.watch_disk()

    def _next_batch(self) -> tuple[list[Record], int, CorruptRange | None]:
        batch: list[Record] = []
        size = 0
        while len(batch) < self._rows and size < self._most_bytes:
            block = self._backlog.spool.next_block()
            if block is None:
                break
            if isinstance(block, CorruptRange):
                # The records before it must be committed without those after it.
                return batch, size, block
            batch += block
            size += memory_of(block)
        return batch, size, None

    def _retry_until_written(self, act: Callable[[], None]) -> bool:
        while True:
            try:
                act()
            except DatabaseUnavailable as error:
                self._outage.failed(error)
                # The batch may have been too large for the statement timeout.
                is_smaller_next = error.kind == STATEMENT_TIMEOUT and self._rows > self._least_rows
            else:
                self._outage.over()
                return True
            if not self._wait() or is_smaller_next:
                self._rows = self._least_rows
                self._backlog.spool.rewind()
                return False

    def _commit(self, batch: Sequence[Record]) -> None:
        try:
            self._committer.commit(batch, repeated=True)
        except BatchRefused:
            self._committer.commit_parts(batch)

    def _declare(self, damage: CorruptRange) -> None:
        is_own = self._former_file is None or damage.number > self._former_file
        self._committer.record_spool_corruption(damage, self._own_sessions(), is_own=is_own)
