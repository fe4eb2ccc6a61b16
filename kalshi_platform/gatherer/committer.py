"""Batches → the database: whole, or without the rows that it refuses.

A batch of which the server refuses a row is halved until that row is alone, which is then put aside as a dead letter.
A refusal that no row is to blame for (a table is missing, a right was taken away) is an outage: nothing is put aside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable, StatementRejected
from kalshi_platform.gatherer.commit import Commit, as_dead_letter, commit_records
from kalshi_platform.gatherer.spool_file import Damage
from kalshi_platform.gatherer.writer_counters import WriterCounters
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    DeadLetter,
    MembershipEnded,
    MembershipStarted,
    Record,
)
from kalshi_platform.storage import queries
from kalshi_platform.storage.failures import is_about_a_row
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.tables import GATHERER_TABLES

SPOOL_DAMAGED = "spool_damaged"
_log = logging.getLogger(__name__)


class BatchRefused(Exception):
    """A row of the batch cannot be written; nothing of it was. `commit_parts` finds out which."""


class Committer:
    """Writes for one gatherer, from one thread, and counts what arrived."""

    def __init__(
        self,
        name: str,
        database: Database,
        bounds: PartitionBounds,
        clock: Clock,
        counters: WriterCounters,
        on_lost_claim: Callable[[Sequence[str]], None] | None,
        on_lost_sessions: Callable[[], None] | None = None,
    ) -> None:
        """`on_lost_claim(tickers)` hears of markets whose membership had to be ended; `on_lost_sessions()` is called
        when the ledger may not know how open sessions began."""
        self._name = name
        self._database = database
        self._bounds = bounds
        self._clock = clock
        self._counters = counters
        self._on_lost_claim = on_lost_claim or (lambda _: None)
        self._on_lost_sessions = on_lost_sessions or (lambda: None)
        self._keeper = PartitionKeeper(database, bounds, clock)
        self._ahead_hour: int | None = None

    def commit(self, records: Sequence[Record], *, repeated: bool) -> None:
        """Write all of `records`. Raises DatabaseUnavailable, BatchRefused, or StatementRejected (no row is to blame).

        `repeated`: they may be there already.
        """
        self._look_ahead()
        try:
            self._write(records, repeated=repeated)
        except (DatabaseUnavailable, BatchRefused):
            raise
        except Exception as error:
            # Partitions may have gone: begin with a fresh memory of what exists.
            self._keeper = PartitionKeeper(self._database, self._bounds, self._clock)
            if isinstance(error, StatementRejected) and not is_about_a_row(error.sqlstate):
                raise
            _log.warning("%s: a batch was refused; its rows are tried one part at a time", self._name)
            raise BatchRefused(str(error)) from error

    def commit_parts(self, records: Sequence[Record]) -> None:
        """Write a refused batch, again whole at first, and put aside what cannot be written.

        Raises DatabaseUnavailable, or what the database said where nothing can be put aside.
        """
        starts = {(m.stream_id, m.ticker, m.seq_from): m for m in records if isinstance(m, MembershipStarted)}
        self._commit_part(records, starts)

    def declare_lost(self, damage: Damage, own_sessions: Sequence[int], *, is_own: bool) -> None:
        """Say in the ledger that records were lost here, of which only the numbers would tell, and not for sure.

        Everything that was put before them is committed, and nothing that was put after them. So every membership that
        is open ends at the last committed number of its stream; what was lost may have ended it. It may as well have
        begun others, of which the ledger will never know: where it `is_own`, this process's, all sessions begin anew.
        """
        sql = queries.load("gatherer")
        params = {"gatherer": self._name, "own": list(own_sessions)}
        with self._database.transaction() as transaction:
            transaction.execute(sql["lock_batches"])
            ended = transaction.fetch_all(sql["end_memberships_at_damage"], params)
        if not damage.is_torn:
            detail = f"{damage.file}: {damage.what}; {damage.size} bytes at {damage.offset} cannot be read"
            letter = DeadLetter(damage.written_at_ns or self._clock.now_ns(), SPOOL_DAMAGED, detail, damage.payload)
            self._write([self._dated(letter)], repeated=True)
            self._counters.spool_damages += 1
            _log.error("%s: RECORDS WERE LOST: spool file %s; coverage ends there", self._name, detail)
        tickers = sorted({str(ticker) for ticker, is_of_own_session in ended if is_of_own_session})
        if is_own and not damage.is_torn:
            self._on_lost_sessions()
        elif tickers:
            self._on_lost_claim(tickers)

    def _commit_part(self, records: Sequence[Record], starts: Mapping[tuple[int, str, int], MembershipStarted]) -> None:
        """`starts`: the memberships that begin in the batch."""
        try:
            self._write(records, repeated=True)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            if isinstance(error, StatementRejected) and not is_about_a_row(error.sqlstate):
                raise
            if len(records) > 1:
                middle = len(records) // 2
                self._commit_part(records[:middle], starts)
                self._commit_part(records[middle:], starts)
                return
            (record,) = records
            if not _has_unwritable_ticker(record):
                if self._dated(record) is not record:
                    self._write([self._dated(record)], repeated=True)
                    return
                if isinstance(record, DeadLetter) or not hasattr(record, "received_at_ns"):
                    raise
                started = None
                if isinstance(record, BookSnapshot):
                    started = starts.get((record.stream_id, record.ticker, record.seq))
                self._put_aside(record, error, started)

    def _put_aside(self, record: Record, error: Exception, started: MembershipStarted | None) -> None:
        detail = f"the database refused the row: {type(error).__name__}: {str(error).splitlines()[0][:300]}"
        letters = as_dead_letter(record, "unwritable", detail.replace("\x00", ""), started)
        letters = [self._dated(_clean(each)) for each in letters if not _has_unwritable_ticker(each)]
        self._write(letters, repeated=True)
        self._counters.unwritable += 1
        if isinstance(record, BookDelta | BookSnapshot):
            self._on_lost_claim((record.ticker,))

    def _dated(self, record: Record) -> Record:
        """A dead letter that came when the clock was wrong, beyond what a partition may hold, is dated now."""
        if not isinstance(record, DeadLetter):
            return record
        low_us, _ = self._keeper.bounds_us()
        now_ns = self._clock.now_ns()
        if low_us * 1_000 <= record.received_at_ns <= now_ns:
            return record
        return msgspec.structs.replace(record, received_at_ns=now_ns)

    def _write(self, records: Sequence[Record], *, repeated: bool) -> None:
        commit = commit_records(self._database, self._keeper, self._name, records, repeated=repeated)
        self._count(commit, records)

    def _count(self, commit: Commit, records: Sequence[Record]) -> None:
        counters = self._counters
        counters.commits += 1
        for table, rows in commit.inserted.items():
            counters.rows[table] = counters.rows.get(table, 0) + rows
        now_ns = self._clock.now_ns()
        counters.last_commit_ns = now_ns
        first = next((each.received_at_ns for each in records if hasattr(each, "received_at_ns")), None)
        if first:
            counters.lags_ms.append((now_ns - first) / 1e6)
        if commit.out_of_bounds:
            counters.out_of_bounds += len(commit.out_of_bounds)
            tickers = sorted({row.ticker for row in commit.out_of_bounds if isinstance(row, BookDelta)})
            if tickers:
                self._on_lost_claim(tickers)

    def _look_ahead(self) -> None:
        """Make the partitions of the next hours before rows need them, once an hour."""
        hour = self._clock.now_ns() // 3_600_000_000_000
        if hour != self._ahead_hour:
            self._keeper.ensure_ahead(GATHERER_TABLES)
            self._ahead_hour = hour


def _clean(record: Record) -> Record:
    """PostgreSQL's text holds no NUL character; the payload keeps it."""
    if isinstance(record, DeadLetter):
        ticker = None if record.ticker is None else record.ticker.replace("\x00", "\\0")
        return DeadLetter(
            record.received_at_ns, record.reason, record.detail, record.payload, record.stream_id, record.seq,
            record.channel, ticker,
        )  # fmt: skip
    return record


def _has_unwritable_ticker(record: Record) -> bool:
    """Whether it is a membership that cannot be written at all, and of which therefore nothing must be taken back."""
    return isinstance(record, MembershipStarted | MembershipEnded) and "\x00" in record.ticker
