"""Records from every thread → commits. Nothing is dropped.

A bounded queue is flushed at rows or age, one transaction per flush. While the database is away, what the queue holds
goes to the spool on disk instead, at the same pace, and is replayed in order, before anything newer, when it returns;
the same happens to the overflow of a database that is too slow. What a former process left in the spool comes first.
With neither database nor disk to write to, and a full queue, `put` waits: who receives then receives no more, and the
exchange, or the watch on silent lines, ends the session. What is lost that way is not claimed.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.gatherer.commit import Commit, as_dead_letter, close_former, commit_records
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.spool import Spool
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    DeadLetter,
    MembershipEnded,
    MembershipStarted,
    Record,
)
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.tables import GATHERER_TABLES

_LAGS_KEPT = 600
# Beyond the time a stop may take: a statement under way may end, and what is left be put on disk.
_LAST_STEP_S = 1.0
_ROOM_CHECK_S = 0.5
_log = logging.getLogger(__name__)


@dataclass
class WriterCounters:
    """Totals since the start; lags of the last commits in milliseconds (oldest record of a commit → committed)."""

    records_put: int = 0
    commits: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    out_of_bounds: int = 0
    unwritable: int = 0
    spooled: int = 0
    replayed: int = 0
    last_commit_ns: int = 0
    database_error: str | None = None
    disk_error: str | None = None
    stalls: int = 0
    lags_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LAGS_KEPT))


class Writer:
    """One thread owns the database; `put` may be called from any other."""

    def __init__(
        self,
        settings: GathererSettings,
        database: Database,
        bounds: PartitionBounds,
        clock: Clock,
        spool: Spool,
        own_sessions: Callable[[], Sequence[int]] = tuple,
        on_lost_claim: Callable[[Sequence[str]], None] | None = None,
        ending: threading.Event | None = None,
    ) -> None:
        """`on_lost_claim(tickers)` hears of markets whose membership the writer had to end: they need a snapshot.

        Once `ending` is set, `put` no longer waits for room.
        """
        self.counters = WriterCounters()
        self._settings = settings
        self._database = database
        self._bounds = bounds
        self._clock = clock
        self._spool = spool
        self._own_sessions = own_sessions
        self._on_lost_claim = on_lost_claim
        self._ending = ending or threading.Event()
        self._keeper = PartitionKeeper(database, bounds, clock)
        self._wake = threading.Condition()
        self._queue: list[Record] = []
        self._oldest_put: float | None = None
        self._stop_by: float | None = None
        self._retry_at = 0.0
        self._failures = 0
        # What a former process left on disk, and whether its open sessions are closed in the ledger.
        self._former_file = spool.last_number()
        self._former_closed = False
        self._ahead_hour: int | None = None
        self._thread: threading.Thread | None = None
        # What is being written and stands nowhere else.
        self._in_flight: list[Record] = []
        self._stalled = False
        self._abandoned = False

    # -- any thread

    def put(self, records: Sequence[Record]) -> None:
        """Take records, in their order. Returns at once, unless the queue is full: then after a write to disk.

        When neither database nor disk takes anything, it returns when one of them does again, or at the end.
        """
        if not records:
            return
        with self._wake:
            if self._stalled:
                self._wait_for_room()
            self._queue.extend(records)
            self.counters.records_put += len(records)
            if self._oldest_put is None:
                self._oldest_put = self._clock.monotonic()
            full = len(self._queue) >= self._settings.queue_rows
            if full:
                self._spill()
            if full or len(self._queue) >= self._settings.flush_rows or len(self._queue) == len(records):
                self._wake.notify_all()
            if len(self._queue) >= self._settings.queue_rows:
                self._stall()
                self._wait_for_room()

    def queued(self) -> int:
        """Records in memory that are neither committed nor on disk."""
        with self._wake:
            return len(self._queue) + len(self._in_flight)

    def is_settled(self) -> bool:
        """Whether everything that was put is committed."""
        with self._wake:
            return not self._queue and not self._in_flight and self._spool.is_empty()

    @property
    def database_is_away(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._failures > 0

    @property
    def failures(self) -> int:
        """Attempts in a row that failed."""
        return self._failures

    @property
    def is_stalled(self) -> bool:
        """Whether memory is full and neither database nor disk takes what it holds: nothing is received then."""
        return self._stalled

    def spool_bytes(self) -> int:
        """Bytes waiting on disk."""
        return self._spool.bytes_on_disk()

    # -- life

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=f"{self._settings.name} writer", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, timeout_s: float) -> bool:
        """Write what is left, for at most about `timeout_s`; the rest stays on disk. Return whether nothing is left.

        A database that gives no answer at all is not waited for any longer: what it was given goes to disk, too, and
        is written again by the next start. If it did arrive, that changes nothing.
        """
        with self._wake:
            self._stop_by = self._clock.monotonic() + timeout_s
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s + _LAST_STEP_S)
            if self._thread.is_alive():
                self._abandon()
        self._spool.close()
        return self._spool.is_empty() and not self.queued()

    def _abandon(self) -> None:
        """Take from the thread, which hangs in the database, what it holds."""
        with self._wake:
            self._abandoned = True
            _log.error("%s: the database gives no answer; what it was given goes to the spool", self._settings.name)
            if self._in_flight:
                self._put_before(self._in_flight)
                self._in_flight = []
            self._spill_rest()

    # -- the writer's thread

    def _run(self) -> None:
        while True:
            self._wait_for_work()
            stopping = self._stop_by is not None
            try:
                done = self._step()
            except _Abandoned:
                return
            except Exception as error:  # noqa: BLE001 - the last line: whatever it is, capture goes on
                self._spool.rewind()
                _log.exception("%s: the writer failed; it will try again", self._settings.name)
                self._failed(f"{type(error).__name__}: {error}")
                done = False
            if stopping and (done or self._failures or self._is_late()):
                self._spill_rest()
                return

    def _wait_for_work(self) -> None:
        with self._wake:
            while self._stop_by is None:
                now = self._clock.monotonic()
                deadlines = []
                if self.counters.disk_error is not None and now < self._retry_at:
                    # Nothing can be written anywhere before the database is asked again.
                    deadlines.append(self._retry_at)
                elif len(self._queue) >= self._settings.flush_rows:
                    return
                elif self._oldest_put is not None:
                    deadlines.append(self._oldest_put + self._settings.flush_interval_s)
                if not self._spool.is_empty() or not self._former_closed or self._failures:
                    deadlines.append(max(self._retry_at, 0.0))
                if deadlines and min(deadlines) <= now:
                    return
                self._wake.wait(max(0.001, min(deadlines) - now) if deadlines else None)

    def _step(self) -> bool:
        """Write one batch; return whether nothing is left to write."""
        with self._wake:
            self._keep_or_leave()
            records, self._queue, self._oldest_put = self._queue, [], None
            if records and not self._spool.is_empty():
                # Order: older records are on disk, so these go behind them.
                self._to_disk(records)
                records = []
            self._in_flight = records
        try:
            if records:
                self._write_direct(records)
        finally:
            with self._wake:
                self._in_flight = []
        if self._clock.monotonic() < self._retry_at:
            return False
        if not self._spool.is_empty():
            self._replay()
        if not self._former_closed:
            self._close_former()
        with self._wake:
            done = not self._queue and self._spool.is_empty()
        if done and self._former_closed:
            self._failures = 0
        return done

    def _write_direct(self, records: list[Record]) -> None:
        if self._clock.monotonic() >= self._retry_at:
            try:
                self._commit(records, repeated=False)
            except DatabaseUnavailable as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the records must not be lost
                _log.exception("%s: a batch could not be written; it goes to the spool", self._settings.name)
                self._failed(f"{type(error).__name__}: {error}")
            else:
                self._keep_or_leave()
                return
        with self._wake:
            self._keep_or_leave()
            self._put_before(records)

    def _replay(self) -> None:
        """Write blocks of the spool, oldest first, as one batch of about flush_rows."""
        batch: list[Record] = []
        while len(batch) < self._settings.flush_rows:
            block = self._spool.next_block()
            if block is None:
                break
            batch += block
        if batch:
            while True:
                try:
                    self._commit(batch, repeated=True)
                    self._keep_or_leave()
                    break
                except DatabaseUnavailable as error:
                    self._keep_or_leave()
                    self._failed(str(error))
                # The batch stays in memory and is retried as it is; newer records meanwhile go to disk.
                if not self._wait_for_database():
                    self._spool.close()
                    return
            self.counters.replayed += len(batch)
        self._spool.drop_read()

    def _wait_for_database(self) -> bool:
        """Spool what comes until the next attempt is due; return False when it is time to stop."""
        while True:
            with self._wake:
                now = self._clock.monotonic()
                if self._stop_by is not None:
                    return False
                if self._queue:
                    records, self._queue, self._oldest_put = self._queue, [], None
                    self._to_disk(records)
                if now >= self._retry_at:
                    return True
                self._wake.wait(max(0.001, min(self._retry_at - now, self._settings.flush_interval_s)))

    def _keep_or_leave(self) -> None:
        """After a database that gave no answer did: go on, unless `stop` has taken everything away meanwhile."""
        if self._abandoned:
            raise _Abandoned

    def _commit(self, records: Sequence[Record], *, repeated: bool) -> None:
        self._look_ahead()
        try:
            commit = commit_records(self._database, self._keeper, self._settings.name, records, repeated=repeated)
        except DatabaseUnavailable:
            raise
        except Exception:  # noqa: BLE001 - the driver's errors are the storage room's
            # Partitions may have gone, or one row is poison. Begin with a fresh memory of what exists.
            self._keeper = PartitionKeeper(self._database, self._bounds, self._clock)
            _log.warning("%s: a batch was refused; its rows are tried one part at a time", self._settings.name)
            starts = {(m.stream_id, m.ticker, m.seq_from): m for m in records if isinstance(m, MembershipStarted)}
            self._commit_parts(records, starts)
            return
        self._committed(commit, records)

    def _commit_parts(
        self, records: Sequence[Record], starts: Mapping[tuple[int, str, int], MembershipStarted]
    ) -> None:
        """Halve a refused batch until the row that the database refuses is alone, and put that one aside.

        `starts`: the memberships that begin in the batch.
        """
        try:
            commit = commit_records(self._database, self._keeper, self._settings.name, records, repeated=True)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            if len(records) > 1:
                middle = len(records) // 2
                self._commit_parts(records[:middle], starts)
                self._commit_parts(records[middle:], starts)
                return
            record = records[0]
            if _has_unwritable_ticker(record):
                _log.warning("%s: a membership of an unwritable ticker was left out", self._settings.name)
                return
            if isinstance(record, DeadLetter) or not hasattr(record, "received_at_ns"):
                raise
            started = None
            if isinstance(record, BookSnapshot):
                started = starts.get((record.stream_id, record.ticker, record.seq))
            self._put_aside(record, error, started)
            return
        self._committed(commit, records)

    def _put_aside(self, record: Record, error: Exception, started: MembershipStarted | None) -> None:
        detail = f"the database refused the row: {type(error).__name__}: {str(error).splitlines()[0][:300]}"
        letters = as_dead_letter(record, "unwritable", detail.replace("\x00", ""), started)
        aside = [_clean(each) for each in letters if not _has_unwritable_ticker(each)]
        commit = commit_records(self._database, self._keeper, self._settings.name, aside, repeated=True)
        self.counters.unwritable += 1
        self._committed(commit, aside)
        if isinstance(record, BookDelta | BookSnapshot) and self._on_lost_claim is not None:
            self._on_lost_claim((record.ticker,))

    def _committed(self, commit: Commit, records: Sequence[Record]) -> None:
        counters = self.counters
        if self._failures:
            _log.info("%s: the database takes writes again", self._settings.name)
        self._failures = 0
        counters.database_error = None
        counters.disk_error = None
        counters.commits += 1
        with self._wake:
            self._resume()
        for table, rows in commit.inserted.items():
            counters.rows[table] = counters.rows.get(table, 0) + rows
        now_ns = self._clock.now_ns()
        counters.last_commit_ns = now_ns
        first = next((each.received_at_ns for each in records if hasattr(each, "received_at_ns")), None)
        if first is not None:
            counters.lags_ms.append((now_ns - first) / 1e6)
        if commit.out_of_bounds:
            counters.out_of_bounds += len(commit.out_of_bounds)
            tickers = sorted({row.ticker for row in commit.out_of_bounds if isinstance(row, BookDelta)})
            if tickers and self._on_lost_claim is not None:
                self._on_lost_claim(tickers)

    def _look_ahead(self) -> None:
        """Make the partitions of the next hours before rows need them, once an hour."""
        hour = self._clock.now_ns() // 3_600_000_000_000
        if hour != self._ahead_hour:
            self._keeper.ensure_ahead(GATHERER_TABLES)
            self._ahead_hour = hour

    def _close_former(self) -> None:
        oldest = self._spool.oldest_number()
        if self._former_file is not None and oldest is not None and oldest <= self._former_file:
            return
        try:
            close_former(self._database, self._settings.name, self._own_sessions())
        except DatabaseUnavailable as error:
            self._failed(str(error))
            return
        self._former_closed = True
        self._failures = 0
        self.counters.database_error = None

    def _failed(self, reason: str) -> None:
        if self._failures == 0:
            _log.warning("%s: %s; records go to the spool", self._settings.name, reason)
        self._failures += 1
        self.counters.database_error = reason
        delay = min(self._settings.database_retry_max_s, 0.1 * 2 ** min(self._failures, 10))
        self._retry_at = self._clock.monotonic() + delay

    # -- disk

    def _spill(self) -> None:
        """Empty a full queue to disk (the lock is held)."""
        records, self._queue, self._oldest_put = self._queue, [], None
        self._to_disk(records)

    def _to_disk(self, records: list[Record]) -> None:
        self._spooled(records, self._spool.append)

    def _put_before(self, records: list[Record]) -> None:
        self._spooled(records, self._spool.prepend)

    def _spooled(self, records: list[Record], write: Callable[[Sequence[Record]], None]) -> None:
        """Write records to disk or, when that fails, keep them at the head of the queue (the lock is held)."""
        try:
            write(records)
        except OSError as error:
            if self.counters.disk_error is None:
                _log.error("%s: the spool cannot be written: %s; memory is what is left", self._settings.name, error)
            self.counters.disk_error = str(error)
            self._queue[:0] = records
            self._oldest_put = self._clock.monotonic()
            return
        self.counters.spooled += len(records)
        self.counters.disk_error = None
        self._resume()

    def _stall(self) -> None:
        if not self._stalled:
            self._stalled = True
            self.counters.stalls += 1
            _log.critical(
                "%s: NOTHING IS RECEIVED: memory is full, and neither database (%s) nor disk (%s) takes records",
                self._settings.name, self.counters.database_error, self.counters.disk_error,
            )  # fmt: skip

    def _resume(self) -> None:
        if self._stalled:
            self._stalled = False
            _log.warning("%s: records are taken again", self._settings.name)
            self._wake.notify_all()

    def _wait_for_room(self) -> None:
        """Wait until database or disk takes records again (the lock is held)."""
        while self._stalled and self._stop_by is None and not self._ending.is_set():
            self._wake.wait(_ROOM_CHECK_S)
            if self._stalled and self._queue:
                self._spill()

    def _spill_rest(self) -> None:
        with self._wake:
            if self._queue:
                count = len(self._queue)
                self._spill()
                if self._queue:
                    _log.critical("%s: %d records are LOST: they can be written nowhere", self._settings.name, count)
                else:
                    _log.warning("%s: %d records stay in the spool", self._settings.name, count)

    def _is_late(self) -> bool:
        return self._stop_by is not None and self._clock.monotonic() >= self._stop_by


class _Abandoned(Exception):
    """The thread was given up: what it held is on disk, and it must touch nothing any more."""


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
