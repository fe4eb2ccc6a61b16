"""Buffers the records that were received and are not committed: in memory, and older ones on disk.

At every moment database and spool together contain a prefix of all records, without a hole: records in memory are newer
than those on disk, and a batch that is being committed goes to disk before anything newer does. So a kill costs the
newest records and never some in between, and the ledger, which is written with them, stays true.

A full memory is emptied to disk. With no room there either and the database unavailable, the backlog is *stalled*:
connections must end their sessions and wait for room.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.ingest.outage import Outage
from kalshi_platform.gatherer.ingest.puts import Puts, memory_of
from kalshi_platform.gatherer.ingest.writer_counters import WriterCounters
from kalshi_platform.gatherer.journal.spool import Spool, SpoolAlarm
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.records import Record
from kalshi_platform.monitoring.event_log import event_logger

_CHECK_S = 0.5
# After a stall the spool must be below this share: else the next stall would come with the first records.
_ROOM_AGAIN = 0.9
_log = event_logger(__name__)


class Backlog:
    """Keeps memory and spool of one writer; `put` is for any thread, the methods marked so for the writer's."""

    def __init__(
        self,
        settings: GathererSettings,
        clock: Clock,
        spool: Spool,
        outage: Outage,
        counters: WriterCounters,
        ending: threading.Event,
    ) -> None:
        """Set up the backlog; once `ending` is set, `put` no longer waits."""
        self.changed = threading.Condition()
        """Notified when there are records to write, and when there is room again."""
        self.spool = spool
        self.is_stalled = False
        self.is_closing = False
        self.oldest_put: float | None = None
        """Monotonic time at which the oldest record in memory was put."""
        self._settings = settings
        self._clock = clock
        self._outage = outage
        self._counters = counters
        self._ending = ending
        self._alarm = SpoolAlarm(settings.name, spool, self._count_spool_alarm)
        self._queue = Puts()
        self._in_flight = Puts()
        self._in_flight_on_disk = False
        self._replaying = (0, 0)

    # -- called from any thread

    def put(self, records: Sequence[Record]) -> None:
        """Append records, in their order; with a full memory write to disk first or, when that fails, wait.

        It waits for at most `stall_patience_s`, and not at all when the database is known to be unavailable: then the
        backlog is stalled, and records that are put nevertheless (the end of a session) stay in memory.
        """
        size = memory_of(records)
        with self.changed:
            before = len(self._queue.records)
            self._queue.add(records, size)
            self._counters.records_put += len(records)
            if self.oldest_put is None:
                self.oldest_put = self._clock.monotonic()
            self._count_in_memory()
            full = self._is_full()
            if full and not self.is_stalled:
                self._spill()
            if full or before == 0 or self.is_worth_a_commit():
                self.changed.notify_all()
            if self._is_full() and not self.is_stalled:
                self._wait_or_stall()

    def wait_for_room(self) -> None:
        """Wait until there is room for records, or the end."""
        with self.changed:
            while self.is_stalled and not self._is_over():
                self.changed.wait(_CHECK_S)

    def queued(self) -> int:
        """Return the number of records in memory that are neither committed nor on disk."""
        with self.changed:
            in_flight = 0 if self._in_flight_on_disk else len(self._in_flight.records)
            return len(self._queue.records) + in_flight

    def uncommitted_bytes(self) -> int:
        """Return about the bytes in memory of all uncommitted records, those being written included."""
        with self.changed:
            return self._queue.size + self._in_flight.size + self._replaying[1]

    def is_settled(self) -> bool:
        """Return whether everything that was put is committed."""
        with self.changed:
            return not self._queue.records and not self._in_flight.records and self.spool.is_empty()

    # -- the writer's thread

    def waiting(self) -> int:
        """Return the number of records that wait to be written (the condition's lock is held)."""
        return len(self._queue.records)

    def is_worth_a_commit(self) -> bool:
        """Return whether so many records wait that they should be written at once (the condition's lock is held)."""
        settings = self._settings
        return len(self._queue.records) >= settings.flush_rows or self._queue.size >= settings.flush_bytes

    def take(self) -> list[Record]:
        """Return the records to commit now; none when older ones are on disk, to which these are appended.

        `landed` or `failed` must follow; without it the next call returns the same records again.
        """
        with self.changed:
            self._take_back()
            if not self.spool.is_empty():
                self._spill()
                return []
            self._in_flight, self._queue, self.oldest_put = self._queue, Puts(), None
            self._in_flight_on_disk = False
            return self._in_flight.records

    def landed(self) -> None:
        """Drop the records of the last `take`, which are committed."""
        with self.changed:
            self._in_flight = Puts()
            self._in_flight_on_disk = False
            self._check_for_room()

    def failed(self) -> bool:
        """Move the uncommitted records of the last `take` to disk; return False if they went back to memory."""
        with self.changed:
            if not self._in_flight.records:
                return True
            stored = self._keep_in_flight()
            self._take_back()
            return stored

    def replaying(self, count: int, size: int) -> None:
        """Set how many records of the spool, of `size` bytes, are in memory just now."""
        with self.changed:
            self._replaying = count, size
            self._count_in_memory()

    def spill(self, *, last: bool = False) -> bool:
        """Move everything in memory to disk, with `last` beyond its limits; return whether nothing is left."""
        with self.changed:
            return self._spill(last=last)

    def watch_disk(self) -> None:
        """Check how full the spool is, and whether there is room again."""
        with self.changed:
            self._alarm.check_usage(self._counters.disk_error)
            self._check_for_room()

    def close(self) -> None:
        """End all waits."""
        with self.changed:
            self.is_closing = True
            self.changed.notify_all()

    # -- called with the condition's lock held

    def _is_full(self) -> bool:
        settings = self._settings
        return len(self._queue.records) >= settings.queue_rows or self._queue.size >= settings.queue_bytes

    def _is_over(self) -> bool:
        return self.is_closing or self._ending.is_set()

    def _count_in_memory(self) -> None:
        counters, (rows, size) = self._counters, self._replaying
        held = len(self._queue.records) + len(self._in_flight.records) + rows
        counters.most_held = max(counters.most_held, held)
        counters.most_held_bytes = max(counters.most_held_bytes, self._queue.size + self._in_flight.size + size)

    def _take_back(self) -> None:
        """Return taken records that are not on disk to memory."""
        if self._in_flight.records and not self._in_flight_on_disk:
            self._in_flight.put_before(self._queue)
            self.oldest_put = self._clock.monotonic()
        self._in_flight = Puts()
        self._in_flight_on_disk = False

    def _spill(self, *, last: bool = False) -> bool:
        if not self._keep_in_flight(last=last) or not self._store(self._queue, last=last):
            return False
        self.oldest_put = None
        self._check_for_room()
        return True

    def _keep_in_flight(self, *, last: bool = False) -> bool:
        """Write the records being committed to disk, before newer ones; committing them twice changes nothing."""
        if self._in_flight.records and not self._in_flight_on_disk:
            copy = Puts()
            self._in_flight.put_before(copy)
            # All or nothing: a part of it would be out of order.
            if not self._store(copy, last=last, at_once=True):
                return False
            self._in_flight_on_disk = True
        return True

    def _store(self, puts: Puts, *, last: bool, at_once: bool = False) -> bool:
        """Move records to disk; return whether all are there. Those that failed stay where they were."""
        settings = self._settings
        ends = [len(puts.records)] if at_once else list(puts.parts(settings.flush_rows, settings.flush_bytes))
        done = 0
        try:
            for end in ends:
                self.spool.append(puts.records[done:end], last=last)
                self._counters.spooled += end - done
                done = end
        except Exception as error:  # noqa: BLE001 - after any error the records stay where they are
            reason = str(error) or type(error).__name__
            if not isinstance(error, OSError) and reason != self._counters.disk_error:
                _log.exception("spool_not_written", gatherer=self._settings.name)
            self._counters.disk_error = reason
            self._alarm.check_usage(self._counters.disk_error)
            return False
        finally:
            puts.drop(done)
        if done:
            self._counters.disk_error = None
            self._alarm.check_usage(self._counters.disk_error)
        return True

    def _wait_or_stall(self) -> None:
        give_up_at = self._clock.monotonic() + self._settings.stall_patience_s
        while self._is_full() and not self.is_stalled and not self._is_over():
            now = self._clock.monotonic()
            if self._outage.failures or now >= give_up_at:
                self._stall()
                return
            self.changed.wait(min(_CHECK_S, give_up_at - now))

    def _stall(self) -> None:
        self.is_stalled = True
        self._counters.stalls += 1
        _log.critical("recording_stalled", gatherer=self._settings.name, error=self.stall_reason())

    def stall_reason(self) -> str:
        """Return why the backlog is stalled, and the remedy."""
        database = self._counters.database_error or "too slow"
        return (
            f"memory is full, the database takes nothing ({database}), and neither does the disk"
            f" ({self._counters.disk_error}). Bring the database back; or make room on the disk, or raise"
            " KALSHI_SPOOL_MAX_GIB. Coverage ends here until then"
        )

    def _count_spool_alarm(self) -> None:
        self._counters.spool_alarms += 1

    def _check_for_room(self) -> None:
        settings = self._settings
        if not self.is_stalled or len(self._queue.records) > settings.queue_rows // 2:
            return
        if self._queue.size > settings.queue_bytes // 2:
            return
        if not self.spool.is_empty() and self.spool.fill().share > _ROOM_AGAIN:
            return
        self.is_stalled = False
        _log.warning("records_accepted_again", gatherer=self._settings.name)
        self.changed.notify_all()
