"""Follows the journal into the database: decodes blocks in their order, and commits rows, ledger and position together.

The position in the database says what it holds. It is read at the start, after every failure and now and then; what
stands behind it in the journal is committed next. So a database that is away is nothing but lag, and one that was
restored or failed over to an older state gets everything again from its own position. Only what the journal no longer
has is lost: open entries of the ledger end then, and an alarm says what is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable, KalshiPlatformError
from kalshi_platform.gatherer.ingest.batch_commit import end_open_entries
from kalshi_platform.gatherer.ingest.batch_reader import Batch, BatchReader, IngestCallbacks, Undecodable
from kalshi_platform.gatherer.ingest.batch_writer import BatchRefused, BatchWriter
from kalshi_platform.gatherer.ingest.fence import LOST, WENT_BACK, CommittedPosition, Fence, place
from kalshi_platform.gatherer.ingest.ingest_counters import IngestCounters
from kalshi_platform.gatherer.ingest.open_streams import OpenStream
from kalshi_platform.gatherer.ingest.outage import Outage
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.gatherer.journal.segments import list_segments
from kalshi_platform.gatherer.journal.writer import JournalWriter
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.status import IngestStatus, LedgerStatus, age_s, time_of_ns
from kalshi_platform.gatherer.threads import WAIT_REPORT_S, ended
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage import queries
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.quarantine import write_in_parts
from kalshi_platform.storage.sqlstate import STATEMENT_TIMEOUT

# Added to the time of a stop: a running statement may end.
_LAST_STEP_S = 1.0
_log = event_logger(__name__)


class Ingest:
    """Owns the database in one thread; `status` and `stop` may be called from any other."""

    def __init__(
        self,
        settings: GathererSettings,
        database: Database,
        bounds: PartitionBounds,
        clock: Clock,
        journal: JournalWriter,
        fence: Fence,
        callbacks: IngestCallbacks | None = None,
    ) -> None:
        """Set up the ingest; nothing runs yet, and no database is needed."""
        self.counters = counters = IngestCounters()
        self._settings = settings
        self._database = database
        self._clock = clock
        self._journal = journal
        self._fence = fence
        self._callbacks = callbacks = callbacks or IngestCallbacks()
        self._outage = Outage(settings.name, clock, counters, settings.database_retry_max_s)
        self._writer = BatchWriter(
            settings.name, database, bounds, clock, counters, fence, callbacks.on_lost_claim,
            callbacks.on_lost_sessions,
            settings.dead_letters_per_minute, settings.dead_letter_days,
        )  # fmt: skip
        self._reader = BatchReader(settings, journal, callbacks, counters)
        self._batch: Batch | None = None
        """What is committed next, kept until it is known to be committed; `_following` comes after it."""
        self._following: Batch | None = None
        self._is_certain = False
        self._committed = fence.known.position
        """The furthest position that this process has committed."""
        self._settled_at: Position | None = None
        """The end of the journal when everything in it was committed."""
        self._received_ns = 0
        """When the last block that is committed was received."""
        self._compare_at = 0.0
        self._read_s = 0.0
        """When the journal was last read."""
        self._reported: tuple[str, str] | None = None
        self._stop_by: float | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # -- called from any thread

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=f"{self._settings.name} ingest", daemon=True)
        self._thread.start()

    @property
    def was_started(self) -> bool:
        """Return whether the thread was started."""
        return self._thread is not None

    @property
    def failures(self) -> int:
        """Return the number of attempts that failed in a row."""
        return self._outage.failures

    @property
    def is_lagging(self) -> bool:
        """Return whether more waits in the journal than one commit takes."""
        return self._reader.is_lagging

    @property
    def position(self) -> Position:
        """Return the position in the database, as far as it is known."""
        return self._fence.known.position

    def committed(self) -> Position | None:
        """Return up to where the journal is committed, None while that is not known."""
        known = self._fence.known
        return known.position if known.journal_id == self._fence.journal_id else None

    @property
    def is_settled(self) -> bool:
        """Return whether everything in the journal is committed."""
        return self._settled_at == self._journal.end

    def behind_bytes(self) -> int:
        """Return about the bytes of the journal that are not in the database."""
        position, end = self.position, self._journal.end
        if self.is_settled:
            return 0
        if position.segment == end.segment:
            return max(0, end.offset - position.offset)
        paths = list_segments(self._journal.folder)
        sizes = (path.stat().st_size for number, path in paths.items() if number >= position.segment and path.exists())
        return max(0, sum(sizes) - position.offset)

    def status(self) -> IngestStatus:
        """Return what was committed, and how far the database is behind."""
        counters, behind = self.counters, self.behind_bytes()
        p50_ms, p99_ms, max_ms = counters.commit_latency.quantiles_ms(0.5, 0.99, 1.0)
        return IngestStatus(
            segment=self.position.segment,
            offset=self.position.offset,
            behind_bytes=behind,
            behind_s=self._behind_s() if behind else 0.0,
            frames=counters.frames,
            commits=counters.commits,
            batch_no=counters.batch_no,
            rows=dict(counters.rows),
            dead_letters=counters.dead_letters,
            scale_contradictions=counters.scale_contradictions,
            out_of_bounds=counters.out_of_bounds,
            unwritable=counters.unwritable,
            damages=counters.damages,
            last_commit=time_of_ns(counters.last_commit_ns),
            database_error=counters.database_error,
            database_failure=counters.database_failure,
            outages=counters.outages,
            lag_p50_ms=p50_ms,
            lag_p99_ms=p99_ms,
            lag_max_ms=max_ms,
            lag_buckets=counters.commit_latency.buckets(),
        )

    def ledger_status(self) -> LedgerStatus:
        """Return the status of the committed ledger."""
        counters, now_s = self.counters, self._clock.monotonic()
        return LedgerStatus(
            subscriptions=counters.book_subscriptions,
            last_claim_age_s=age_s(counters.last_claim_s, now_s),
            compared_age_s=age_s(counters.compared_s, now_s),
            alarm=counters.ledger_alarm,
            alarm_age_s=age_s(counters.ledger_alarm_s, now_s),
        )

    def stop(self, timeout_s: float, on_wait: Callable[[str], None] = lambda _: None) -> bool:
        """Commit the rest of the journal, for at most about `timeout_s`; return whether nothing is left.

        What is left is committed after the next start. `on_wait(what)` receives now and then what the stop still waits
        for. A database that does not answer at all is abandoned: what it holds then is read at the next start.
        """
        self._stop_by = self._clock.monotonic() + timeout_s
        self._stopping.set()
        with self._journal.appended:
            self._journal.appended.notify_all()
        if self._thread is not None:
            give_up_at = self._stop_by + _LAST_STEP_S
            while not ended(self._thread, max(0.0, min(WAIT_REPORT_S, give_up_at - self._clock.monotonic()))):
                if self._clock.monotonic() >= give_up_at:
                    consequence = "the rest of the journal is committed after the next start"
                    _log.error("database_unresponsive", gatherer=self._settings.name, consequence=consequence)
                    break
                on_wait(self._pending_work())
        return self.is_settled

    def _pending_work(self) -> str:
        if self._outage.failures:
            return f"the database ({self.counters.database_failure})"
        return f"the last commit ({self.behind_bytes():,} bytes of the journal)"

    def _behind_s(self) -> float:
        return round(max(0.0, (self._clock.now_ns() - self._received_ns) / 1e9), 1) if self._received_ns else 0.0

    # -- the ingest's thread

    def _run(self) -> None:
        while not self._is_late():
            self._wait_for_work()
            is_last = self._stop_by is not None
            try:
                self._step()
                self._outage.over()
            except Undecodable:
                self._is_certain = False
            except Exception as error:  # noqa: BLE001 - the last line of defence: after any error the ingest goes on
                if not isinstance(error, KalshiPlatformError):
                    _log.exception("ingest_failed", gatherer=self._settings.name, consequence="it tries again")
                self._is_certain = False
                self._outage.failed(error)
            if is_last and (self.is_settled or self._outage.failures):
                break
        self._reader.close()

    def _wait_for_work(self) -> None:
        """Wait until something can be committed or checked; two looks into the journal are a flush interval apart."""
        journal, stopping = self._journal, self._stopping
        while not self._outage.is_due() and not self._clock.wait(stopping, self._outage.wait_s()):
            pass
        if self._reader.is_lagging or self._batch or self._following or not self._is_certain:
            return
        with journal.appended:
            while journal.end == self._reader.read_to and not stopping.is_set():
                left_s = self._compare_at - self._clock.monotonic()
                if left_s <= 0:
                    return
                journal.appended.wait(left_s)
        # Since the last look into the journal, not from now: else what comes during a commit waits for its end, too.
        self._clock.wait(stopping, self._read_s + self._settings.flush_interval_s - self._clock.monotonic())

    def _step(self) -> None:
        """Commit one batch; while the server writes it, the next one is decoded where more waits in the journal."""
        if not self._is_certain or self._clock.monotonic() >= self._compare_at:
            self._make_certain()
        if self._batch is None:
            self._batch, self._following = self._following or self._read(), None
        batch = self._batch
        if batch is not None:
            if self._reader.is_lagging and self._following is None:
                committing = _InThread(lambda: self._commit(batch), f"{self._settings.name} commit")
                try:
                    self._following = self._read()
                finally:
                    committing.result()
            else:
                self._commit(batch)
            self._confirm(batch)
            self._batch = None
        self._settled_at = None if self._reader.is_lagging or self._following else self._reader.read_to

    def _read(self) -> Batch | None:
        self._read_s = self._clock.monotonic()
        return self._reader.read()

    def _make_certain(self) -> None:
        """Read what the database holds: what this process knows, its last batch whose outcome is unknown, or less."""
        batch, fence = self._batch, self._fence
        with self._database.transaction() as transaction:
            found = fence.read(transaction)
        if not self._reader.has_begun or found != fence.known:
            if batch is not None and self._has_landed(batch, found):
                fence.known, self._batch = found, None
                self.counters.commits, self.counters.batch_no = self.counters.commits + 1, found.batch_no
                self._confirm(batch)
            else:
                self._reload()
        elif batch is not None:
            batch.repeated = True
        self._is_certain = True
        self._compare_at = self._clock.monotonic() + self._settings.ledger_compare_interval_s
        self.counters.compared_s = self._clock.monotonic()

    def _has_landed(self, batch: Batch, found: CommittedPosition) -> bool:
        known, fence = self._fence.known, self._fence
        is_after = found.batch_no > known.batch_no and found.position == batch.end
        return self._reader.has_begun and is_after and found.journal_id == fence.journal_id

    def _reload(self) -> None:
        """Begin again at the position in the database, with the state that the database and the journal before it give.

        What the journal no longer has is declared lost: open entries of the ledger end, and it goes on with the oldest.
        """
        self._batch = self._following = self._settled_at = None
        self._reader.forget()
        fence, end = self._fence, self._journal.end
        oldest = self._reader.oldest()
        with self._database.transaction() as transaction:
            fence.known = found = fence.read(transaction)
            start, loss = found.position, fence.describe_loss(found, oldest, end)
            if loss is not None:
                start = oldest
                end_open_entries(transaction, fence, LOST, end=oldest)
                # Before the outcome is known: if the connection breaks, everything may have ended all the same.
                self._report(*loss)
                self._callbacks.on_lost_sessions()
            elif start < self._committed:
                detail = f"it holds the journal up to {place(start)}, and {place(self._committed)} was committed"
                self._report(WENT_BACK, f"{detail}: the rest is committed again")
            sessions, streams = _read_open_entries(transaction)
        if loss is not None:
            fence.confirm()
        self._writer.forget_partitions()
        self._reader.begin_at(max(start, oldest), sessions, streams, self._writer.observe)

    def _report(self, kind: str, detail: str) -> None:
        if self._reported == (kind, detail):
            return
        self._reported = (kind, detail)
        counters = self.counters
        counters.ledger_alarm, counters.ledger_alarm_s = f"{kind}: {detail}", self._clock.monotonic()
        _log.error(kind, gatherer=self._settings.name, detail=detail)
        self._callbacks.on_alarm(kind, detail)

    def _commit(self, batch: Batch) -> None:
        try:
            self._writer.commit(batch.records, batch.end, repeated=batch.repeated)
        except BatchRefused:
            _log.warning("batch_refused", gatherer=self._settings.name, consequence="it is written in parts")
            self._commit_in_parts(batch)
        except DatabaseUnavailable as error:
            if error.kind == STATEMENT_TIMEOUT:
                self._reader.forget_if_large(batch)
            raise

    def _commit_in_parts(self, batch: Batch) -> None:
        """Commit a batch by halves of its blocks, each with its position; a block that is refused by its records."""

        def commit(blocks: Sequence[tuple[int, int, Position]]) -> None:
            records = batch.records[blocks[0][0] : blocks[-1][1]]
            self._writer.commit(records, blocks[-1][2], repeated=True)

        def commit_block(blocks: Sequence[tuple[int, int, Position]], _: Exception) -> None:
            ((low, high, end),) = blocks
            self._writer.commit_parts(batch.records[low:high], end)

        write_in_parts(batch.blocks, commit, commit_block, lambda error: isinstance(error, BatchRefused))

    def _confirm(self, batch: Batch) -> None:
        """Note that a batch is committed."""
        self._committed = max(self._committed, batch.end)
        self._received_ns = batch.received_ns or self._received_ns
        self.counters.book_subscriptions = batch.book_subscriptions

    def _is_late(self) -> bool:
        return self._stop_by is not None and self._clock.monotonic() >= self._stop_by


class _InThread:
    """Runs something in a thread of its own, which a process that ends does not wait for."""

    def __init__(self, act: Callable[[], None], name: str) -> None:
        self._act = act
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def result(self) -> None:
        """Wait for its end; raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            self._error = error


def _read_open_entries(transaction: Transaction) -> tuple[dict[int, int], list[OpenStream]]:
    """Read what the ledger has open: sessions with their start, and streams with their last number and their books."""
    sql = queries.load("gatherer")
    books: dict[int, dict[str, int]] = {}
    for stream_id, ticker, seq_from in transaction.fetch_all(sql["open_books"]):
        books.setdefault(int(stream_id), {})[ticker] = int(seq_from)
    streams = [
        OpenStream(int(stream_id), int(session_id), sid, channel, int(last or 0), books.get(int(stream_id), {}))
        for stream_id, session_id, sid, channel, last in transaction.fetch_all(sql["open_streams"])
    ]
    sessions = transaction.fetch_all(sql["open_sessions"])
    return {int(session_id): int(opened_us) * 1_000 for session_id, opened_us in sessions}, streams
