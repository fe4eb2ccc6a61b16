"""Commits the records of all threads; none is dropped.

A bounded queue is flushed at rows or age, one transaction per flush. While the database is unavailable, the queue's
records go to the spool on disk instead, at the same pace, and are replayed in order, before anything newer, when it
returns; so does the overflow of a database that is too slow. Records that a former process left in the spool come
first. With neither database nor disk to write to, and a full queue, the writer is stalled: connections must end their
sessions, so that coverage ends with what was stored, and open others when there is room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable, KalshiPlatformError
from kalshi_platform.gatherer.ingest.backlog import Backlog
from kalshi_platform.gatherer.ingest.batch_writer import BatchRefused, BatchWriter
from kalshi_platform.gatherer.ingest.fence import Fence
from kalshi_platform.gatherer.ingest.outage import Outage
from kalshi_platform.gatherer.ingest.replay import Replay
from kalshi_platform.gatherer.ingest.writer_counters import WriterCounters
from kalshi_platform.gatherer.journal.spool import Spool
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.status import LedgerStatus, WriterStatus, age_s, time_of_ns
from kalshi_platform.gatherer.threads import WAIT_REPORT_S, ended
from kalshi_platform.market.records import Record
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database

# Added to the time of a stop: a running statement may end, and the rest is written to disk.
_LAST_STEP_S = 1.0
_log = event_logger(__name__)


class Writer:
    """Owns the database in one thread; `put` may be called from any other."""

    def __init__(
        self,
        settings: GathererSettings,
        database: Database,
        bounds: PartitionBounds,
        clock: Clock,
        spool: Spool,
        own_sessions: Callable[[], Sequence[int]] = tuple,
        on_lost_claim: Callable[[Sequence[str]], None] | None = None,
        on_lost_sessions: Callable[[], None] | None = None,
        ending: threading.Event | None = None,
        fence: Fence | None = None,
        on_alarm: Callable[[str, str], None] | None = None,
    ) -> None:
        """Set up the writer.

        `on_lost_claim(tickers)` receives markets whose book subscription the writer ended: they need a snapshot.
        `on_lost_sessions()` is called when records of this process were lost, perhaps with the start of its sessions,
        streams and book subscriptions: every session must end, and another one start.

        Once `ending` is set, `put` no longer waits for room. `fence` guards the ledger. `on_alarm(kind, detail)` is
        called for each alarm.
        """
        self.counters = counters = WriterCounters()
        self._settings = settings
        self._database = database
        self._clock = clock
        self._spool = spool
        self._own_sessions = own_sessions
        self._outage = Outage(settings.name, clock, counters, settings.database_retry_max_s)
        self._backlog = Backlog(settings, clock, spool, self._outage, counters, ending or threading.Event())
        self._committer = BatchWriter(
            settings.name,
            database,
            bounds,
            clock,
            counters,
            fence or Fence(),
            on_lost_claim,
            on_lost_sessions,
            on_alarm,
            settings.dead_letters_per_minute,
            settings.dead_letter_days,
        )
        self._compare_at = clock.monotonic() + settings.ledger_compare_interval_s
        # The last file that a former process left on disk.
        self._former_file = spool.last_number()
        batch_rows = (settings.flush_rows, settings.queue_rows)
        self._replay = Replay(
            self._backlog, self._committer, self._outage, counters, batch_rows, settings.queue_bytes, own_sessions,
            self._former_file, self._spill_until_due,
        )  # fmt: skip
        self._stop_by: float | None = None
        self._thread: threading.Thread | None = None
        self._abandoned = False

    # -- called from any thread

    def put(self, records: Sequence[Record]) -> None:
        """Append records, in their order, without waiting; with a full memory after a write to disk.

        If the disk cannot be written either it waits a little, and not at all while the database is unavailable: see
        `is_stalled`.
        """
        if records:
            self._backlog.put(records)

    def put_blocking(self, records: Sequence[Record]) -> None:
        """Append records that were requested from the exchange; their thread waits while the writer is stalled."""
        self.wait_for_room()
        self.put(records)

    def wait_for_room(self) -> None:
        """Wait while the writer is stalled, at most until the end."""
        self._backlog.wait_for_room()

    def queued(self) -> int:
        """Return the number of records in memory that are neither committed nor on disk."""
        return self._backlog.queued()

    def held_bytes(self) -> int:
        """Return about the bytes in memory of all uncommitted records."""
        return self._backlog.uncommitted_bytes()

    def is_settled(self) -> bool:
        """Return whether everything that was put is committed."""
        return self._backlog.is_settled()

    @property
    def database_is_away(self) -> bool:
        """Return whether the last attempt to write failed."""
        return self._outage.failures > 0

    @property
    def failures(self) -> int:
        """Return the number of attempts that failed in a row."""
        return self._outage.failures

    @property
    def is_stalled(self) -> bool:
        """Return whether memory is full, and database and disk cannot be written: nothing may be received then."""
        return self._backlog.is_stalled

    @property
    def stall_reason(self) -> str | None:
        """Return why the writer is stalled, and the remedy; None when it is not."""
        return self._backlog.stall_reason() if self._backlog.is_stalled else None

    def spool_bytes(self) -> int:
        """Return the bytes of the spool on disk."""
        return self._spool.bytes_on_disk()

    def status(self) -> WriterStatus:
        """Return writer, backlog and spool as of now."""
        counters, fill = self.counters, self._spool.fill()
        p50_ms, p99_ms, max_ms = counters.commit_latency.quantiles_ms(0.5, 0.99, 1.0)
        return WriterStatus(
            queued=self.queued(),
            most_held=counters.most_held,
            held_bytes=self.held_bytes(),
            most_held_bytes=counters.most_held_bytes,
            spool_bytes=fill.used,
            spool_limit_bytes=fill.capacity,
            spool_fill_percent=round(100 * fill.share, 1) if fill.used else 0.0,
            spool_alarms=counters.spool_alarms,
            spool_damages=counters.spool_damages,
            records=counters.records_put,
            commits=counters.commits,
            batch_no=counters.batch_no,
            rows=dict(counters.rows),
            spooled=counters.spooled,
            replayed=counters.replayed,
            out_of_bounds=counters.out_of_bounds,
            unwritable=counters.unwritable,
            last_commit=time_of_ns(counters.last_commit_ns),
            database_error=counters.database_error,
            database_failure=counters.database_failure,
            outages=counters.outages,
            disk_error=counters.disk_error,
            stalled=self.is_stalled,
            stall_reason=self.stall_reason,
            stalls=counters.stalls,
            lag_p50_ms=p50_ms,
            lag_p99_ms=p99_ms,
            lag_max_ms=max_ms,
            lag_buckets=counters.commit_latency.buckets(),
        )

    def ledger_status(self) -> LedgerStatus:
        """Return the status of the committed ledger."""
        counters, now_s = self.counters, self._clock.monotonic()
        return LedgerStatus(
            subscriptions=counters.subscriptions,
            last_claim_age_s=age_s(counters.last_claim_s, now_s),
            compared_age_s=age_s(counters.compared_s, now_s),
            alarm=counters.ledger_alarm,
            alarm_age_s=age_s(counters.ledger_alarm_s, now_s),
        )

    # -- life

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=f"{self._settings.name} writer", daemon=True)
        self._thread.start()

    @property
    def was_started(self) -> bool:
        """Return whether the thread was started."""
        return self._thread is not None

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, timeout_s: float, on_wait: Callable[[str], None] = lambda _: None) -> bool:
        """Write the remaining records, for at most about `timeout_s`; return whether none is left on disk.

        `on_wait(what)` receives now and then what the stop still waits for. A database that does not answer at all is
        abandoned: its records go to disk, too, and are written again by the next start, which changes nothing if they
        were committed.
        """
        self._stop_by = self._clock.monotonic() + timeout_s
        self._backlog.close()
        if self._thread is not None:
            give_up_at = self._stop_by + _LAST_STEP_S
            while not ended(self._thread, max(0.0, min(WAIT_REPORT_S, give_up_at - self._clock.monotonic()))):
                if self._clock.monotonic() >= give_up_at:
                    self._abandon_thread()
                    break
                on_wait(self._pending_work())
        self._spool.close()
        return self._spool.is_empty() and not self.queued()

    def _pending_work(self) -> str:
        if self._outage.failures:
            return f"the database ({self.counters.database_failure})"
        on_disk = self._spool.bytes_on_disk()
        return f"the last commit ({self.queued():,} records in memory, {on_disk:,} bytes on disk)"

    def _abandon_thread(self) -> None:
        """Write the records of the thread, which hangs in the database, to disk."""
        with self._backlog.changed:
            self._abandoned = True
            _log.error(
                "database_unresponsive", gatherer=self._settings.name, consequence="what it was given goes to the spool"
            )
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
            except Exception as error:  # noqa: BLE001 - the last line of defence: after any error capture goes on
                if self._abandoned:
                    return
                self._spool.rewind()
                if not isinstance(error, KalshiPlatformError):
                    _log.exception("writer_failed", gatherer=self._settings.name, consequence="it tries again")
                self._outage.failed(error)
                done = False
            if stopping and (done or self._outage.failures or self._is_late()):
                with self._backlog.changed:
                    if not self._abandoned:
                        self._spill_rest()
                return

    def _wait_for_work(self) -> None:
        backlog, outage = self._backlog, self._outage
        with backlog.changed:
            while self._stop_by is None:
                now = self._clock.monotonic()
                deadlines = []
                if self.counters.disk_error is not None and not outage.is_due():
                    # Nothing can be written anywhere before the next attempt.
                    deadlines.append(outage.retry_at)
                elif backlog.is_worth_a_commit():
                    return
                elif backlog.oldest_put is not None:
                    deadlines.append(backlog.oldest_put + self._settings.flush_interval_s)
                if not self._spool.is_empty() or not self._committer.former_is_closed or outage.failures:
                    deadlines.append(outage.retry_at)
                deadlines.append(max(self._compare_at, outage.retry_at))
                if min(deadlines) <= now:
                    return
                backlog.changed.wait(max(0.001, min(deadlines) - now))

    def _step(self) -> bool:
        """Write one batch; return whether nothing is left to write."""
        self._exit_if_abandoned()
        records = self._backlog.take()
        if records:
            self._write(records)
        if not self._outage.is_due():
            return False
        if not self._spool.is_empty():
            self._replay.step()
            self._exit_if_abandoned()
        if not self._committer.former_is_closed:
            self._close_former()
        if self._stop_by is None and self._clock.monotonic() >= self._compare_at and self._outage.is_due():
            self._committer.compare()
            self._compare_at = self._clock.monotonic() + self._settings.ledger_compare_interval_s
        done = self._backlog.is_settled()
        if done:
            self.counters.disk_error = None
            if self._committer.former_is_closed:
                self._outage.over()
        return done

    def _write(self, records: list[Record]) -> None:
        """Commit records directly from memory; those that cannot be committed now go to disk."""
        if not self._outage.is_due():
            self._backlog.failed()
            return
        try:
            self._committer.commit(records, repeated=False)
        except BatchRefused:
            self._exit_if_abandoned()
            # On disk first: a process that dies between two parts loses none of them.
            if self._backlog.failed():
                return
            self._write_refused()
        except Exception as error:  # noqa: BLE001 - after any error the records must not be lost
            self._exit_if_abandoned()
            if not isinstance(error, KalshiPlatformError):
                _log.exception("batch_failed", gatherer=self._settings.name, consequence="it goes to the spool")
            self._outage.failed(error)
            self._backlog.failed()
        else:
            self._confirm_commit()

    def _write_refused(self) -> None:
        """Commit a refused batch part by part from memory, because the disk cannot be written either."""
        try:
            self._committer.commit_parts(self._backlog.take())
        except Exception as error:  # noqa: BLE001 - as above
            self._exit_if_abandoned()
            self._outage.failed(error)
            self._backlog.failed()
        else:
            self._confirm_commit()

    def _confirm_commit(self) -> None:
        self._exit_if_abandoned()
        self._outage.over()
        self._backlog.landed()

    def _spill_until_due(self) -> bool:
        """Spill new records to disk until the next attempt is due; return False when it is time to stop."""
        backlog = self._backlog
        with backlog.changed:
            while True:
                self._exit_if_abandoned()
                if self._stop_by is not None:
                    return False
                if backlog.waiting():
                    backlog.spill()
                if self._outage.is_due():
                    return True
                left_s = self._outage.retry_at - self._clock.monotonic()
                backlog.changed.wait(max(0.001, min(left_s, self._settings.flush_interval_s)))

    def _close_former(self) -> None:
        oldest = self._spool.oldest_number()
        if self._former_file is not None and oldest is not None and oldest <= self._former_file:
            return
        try:
            self._committer.close_former(self._own_sessions())
        except DatabaseUnavailable as error:
            self._outage.failed(error)
            return
        self._outage.over()

    def _exit_if_abandoned(self) -> None:
        """Raise if `stop` abandoned this thread while the database did not answer."""
        if self._abandoned:
            raise _Abandoned

    def _spill_rest(self) -> None:
        count = self._backlog.queued()
        if count:
            if self._backlog.spill(last=True):
                _log.warning("records_left_in_spool", gatherer=self._settings.name, records=count)
            else:
                _log.critical(
                    "records_lost", gatherer=self._settings.name, records=count, error="they can be written nowhere"
                )

    def _is_late(self) -> bool:
        return self._stop_by is not None and self._clock.monotonic() >= self._stop_by


class _Abandoned(Exception):
    """Ends the abandoned thread: its records are on disk, and it must not change anything any more."""
