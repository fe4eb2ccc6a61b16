"""Writes batches to the database: whole, or without the records that it refuses.

A batch of which the server refuses a record is halved until that record is alone. The record, a row or an entry of the
ledger, is then quarantined as a dead letter, so that it does not block later ones, and its claim is withdrawn. A
refusal that no record causes (a table is missing, a right was revoked) is an outage: none is quarantined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import msgspec

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable, StatementRejected
from kalshi_platform.gatherer.ingest.batch_commit import Commit, commit_records, end_open_entries
from kalshi_platform.gatherer.ingest.dead_letter_limit import DeadLetterLimit
from kalshi_platform.gatherer.ingest.exchange_times import ExchangeTimes
from kalshi_platform.gatherer.ingest.fence import Fence
from kalshi_platform.gatherer.ingest.ingest_counters import IngestCounters
from kalshi_platform.gatherer.ingest.quarantine import (
    UNWRITABLE,
    bare,
    sampled,
    split_by_hours,
    to_dead_letter,
    with_readable_texts,
)
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.gatherer.settings import DEAD_LETTERS_PER_MINUTE
from kalshi_platform.market.names import is_name
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    DeadLetter,
    Record,
    SessionOpened,
    StreamOpened,
    UnknownFrame,
)
from kalshi_platform.market.tables import GATHERER_TABLES
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage import queries
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.quarantine import TooManyPartitions, may_pass_in_parts, write_in_parts
from kalshi_platform.storage.sqlstate import is_about_a_row

_DAYS_DROPPED_AT_ONCE = 4
_log = event_logger(__name__)


class BatchRefused(Exception):
    """Reports that the batch cannot be written whole; `commit_parts` isolates what is refused and writes the others."""


class BatchWriter:
    """Writes for one gatherer, from one thread, and counts what was committed."""

    def __init__(
        self,
        name: str,
        database: Database,
        bounds: PartitionBounds,
        clock: Clock,
        counters: IngestCounters,
        fence: Fence,
        on_lost_claim: Callable[[Sequence[str]], None] | None = None,
        on_lost_sessions: Callable[[], None] | None = None,
        dead_letters_per_minute: int = DEAD_LETTERS_PER_MINUTE,
        letter_days: float = 30.0,
    ) -> None:
        """Set up the writer.

        `on_lost_claim(tickers)` receives markets whose book subscription was ended; `on_lost_sessions()` is called when
        the ledger may lack the start of open sessions. Of the quarantined rows `dead_letters_per_minute` of each reason
        are kept, and all dead letters for `letter_days`.
        """
        self._name = name
        self._database = database
        self._bounds = bounds
        self._clock = clock
        self._counters = counters
        self._on_lost_claim = on_lost_claim or (lambda _: None)
        self._on_lost_sessions = on_lost_sessions or (lambda: None)
        self._fence = fence
        self._keeper = PartitionKeeper(database, bounds, clock)
        self._times = ExchangeTimes(bounds)
        self._letters = DeadLetterLimit(clock.now_ns(), dead_letters_per_minute)
        self._letters_kept_for = timedelta(days=letter_days)
        self._ahead_hour: int | None = None

    def commit(self, records: Sequence[Record], end: Position, *, repeated: bool) -> None:
        """Write all of `records`, which reach to `end` in the journal; with `repeated` they may be there already.

        Raises DatabaseUnavailable, BatchRefused (also where its rows lie in too many partitions), or StatementRejected
        (where no row is the cause).
        """
        self._prepare_partitions()
        try:
            self._write(records, end, repeated=repeated)
        except (DatabaseUnavailable, BatchRefused):
            raise
        except Exception as error:
            self.forget_partitions()
            if isinstance(error, StatementRejected) and not is_about_a_row(error.sqlstate):
                raise
            raise BatchRefused(str(error)) from error

    def commit_parts(self, records: Sequence[Record], end: Position) -> None:
        """Write the records of one block, first whole again, then in parts, with a dead letter for each that fails.

        The position moves after the last part: what failed in between is written again from where the block began.
        Raises DatabaseUnavailable, or the database's error where no record is its cause.
        """
        starts = {(m.stream_id, m.ticker, m.seq_from): m for m in records if isinstance(m, BookSubscriptionStarted)}
        write_in_parts(
            records,
            lambda part: self._write_by_hours(part, end if len(part) == len(records) else None),
            lambda part, error: self._quarantine(part[0], error, starts),
            _may_pass_in_parts,
        )
        if self._fence.known.position != end:
            self._write((), end, repeated=True)

    def observe(self, records: Sequence[Record]) -> None:
        """Take the times of rows that are committed already, with which those of the next ones are compared."""
        self._times.observe(records)

    def forget_partitions(self) -> None:
        """Make sure of every partition again: some may have been dropped, or the database is an older one."""
        self._keeper = PartitionKeeper(self._database, self._bounds, self._clock)
        self._ahead_hour = None

    def _quarantine(
        self, record: Record, error: Exception, starts: Mapping[tuple[int, str, int], BookSubscriptionStarted]
    ) -> None:
        """Write a dead letter in the place of a refused record, and withdraw the record's claim."""
        if isinstance(record, DeadLetter):
            self._quarantine_letter(record)
            return
        readable = with_readable_texts(record)
        if readable is not record and self._is_written([readable]):
            return
        self._counters.unwritable += 1
        detail = f"the database refused it: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
        _log.error("record_quarantined", gatherer=self._name, record_type=type(record).__name__, error=detail)
        started = None
        if isinstance(record, BookSnapshot):
            started = starts.get((record.stream_id, record.ticker, record.seq))
        letters = self._letters.copy()
        made = [self._clamp_time(each) for each in to_dead_letter(record, UNWRITABLE, detail, started)]
        replacement = [*sampled(made, letters), *letters.counts()]
        # If the letter is refused, too, the claims that it would have withdrawn must end all the same.
        if not self._is_written(replacement):
            for each in replacement:
                if isinstance(each, DeadLetter):
                    self._quarantine_letter(each)
                elif not self._is_written([each]):
                    self._withdraw_all_claims()
        self._letters = letters
        self._withdraw_claims(record)

    def _withdraw_claims(self, record: Record) -> None:
        """Withdraw the claims that depend on a quarantined record."""
        if isinstance(record, BookDelta | BookSnapshot | BookSubscriptionStarted):
            if is_name(record.ticker):
                self._on_lost_claim((record.ticker,))
        elif isinstance(record, BookSubscriptionEnded):
            # No book subscription can have been written for a ticker that is no valid name.
            if is_name(record.ticker):
                self._withdraw_all_claims()
        elif isinstance(record, SessionOpened | StreamOpened):
            self._on_lost_sessions()
        elif isinstance(record, UnknownFrame):
            # Without this entry the ledger would claim that its number changed no book.
            self._withdraw_all_claims()

    def _withdraw_all_claims(self) -> None:
        """End everything open and start again, because the ledger may claim too much for unknown markets."""
        with self._database.transaction() as transaction:
            end_open_entries(transaction, self._fence, UNWRITABLE, ("end_all_book_subscriptions",))
        self._fence.confirm()
        self._on_lost_sessions()

    def _quarantine_letter(self, letter: DeadLetter) -> None:
        """Write a refused dead letter in a simpler form; if that is refused, too, log and count it."""
        for other in (self._clamp_time(letter), self._clamp_time(bare(letter))):
            if other is not letter and self._is_written([other]):
                return
        self._counters.unwritable += 1
        _log.error(
            "dead_letter_lost",
            gatherer=self._name,
            reason=letter.reason,
            detail=letter.detail,
            size_bytes=len(letter.payload),
            payload=repr(letter.payload[:200]),
        )

    def _is_written(self, records: Sequence[Record]) -> bool:
        """Write records; return False, with nothing written, where the database refuses one."""
        try:
            self._write(records, None, repeated=True)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            if isinstance(error, StatementRejected) and not is_about_a_row(error.sqlstate):
                raise
            return False
        return True

    def _clamp_time(self, record: Record) -> Record:
        """Return a dead letter dated now if its time, by a wrong clock, lies outside of what partitions accept."""
        if not isinstance(record, DeadLetter):
            return record
        low_us, _ = self._keeper.bounds_us()
        now_ns = self._clock.now_ns()
        if low_us * 1_000 <= record.received_at_ns <= now_ns:
            return record
        return msgspec.structs.replace(record, received_at_ns=now_ns)

    def _write_by_hours(self, records: Sequence[Record], end: Position | None) -> None:
        """Write records, in several transactions where their rows lie in too many partitions for one."""
        try:
            self._write(records, end, repeated=True)
        except TooManyPartitions:
            parts = split_by_hours(records)
        else:
            return
        if len(parts) == 1:
            middle = len(records) // 2
            parts = [records[:middle], records[middle:]]
        for place, part in enumerate(parts, 1):
            self._write_by_hours(part, end if place == len(parts) else None)

    def _write(self, records: Sequence[Record], end: Position | None, *, repeated: bool) -> None:
        # The counts are kept after the commit: if its outcome is unknown, the same totals are written again.
        letters = self._letters.copy()
        commit = commit_records(
            self._database, self._keeper, self._name, records, repeated=repeated, times=self._times, fence=self._fence,
            end=end, letters=letters,
        )  # fmt: skip
        self._letters = letters
        self._count(commit, records)

    def _count(self, commit: Commit, records: Sequence[Record]) -> None:
        counters = self._counters
        counters.commits += 1
        for table, rows in commit.inserted.items():
            counters.rows[table] = counters.rows.get(table, 0) + rows
        now_ns = self._clock.now_ns()
        counters.last_commit_ns = now_ns
        counters.batch_no = commit.batch_no
        first = next((each.received_at_ns for each in records if hasattr(each, "received_at_ns")), None)
        if first:
            counters.commit_latency.observe((now_ns - first) / 1e9)
        if commit.out_of_bounds:
            counters.out_of_bounds += len(commit.out_of_bounds)
            tickers = sorted({row.ticker for row in commit.out_of_bounds if isinstance(row, BookDelta)})
            if tickers:
                self._on_lost_claim(tickers)

    def _prepare_partitions(self) -> None:
        """Create the partitions of the next hours before rows need them, and drop old dead letters, once an hour."""
        hour = self._clock.now_ns() // 3_600_000_000_000
        if hour != self._ahead_hour:
            self._keeper.ensure_ahead(GATHERER_TABLES)
            before = self._clock.now() - self._letters_kept_for
            with self._database.transaction() as transaction:
                transaction.fetch_one(
                    queries.load("gatherer")["drop_old_letters"], {"before": before, "days": _DAYS_DROPPED_AT_ONCE}
                )
            self._ahead_hour = hour


def _may_pass_in_parts(error: Exception) -> bool:
    """Return whether parts of a refused batch may be accepted; an unavailable database accepts none."""
    return not isinstance(error, DatabaseUnavailable) and may_pass_in_parts(error)
