"""What was received and is not committed: in memory, and behind it on disk.

At every moment database and spool together hold a beginning of what was put, without a hole: what is in memory is newer
than what is on disk, and a batch that is just being committed goes to disk before anything newer does. So a kill costs
the newest records and never some in between, and the ledger, which is written with them, stays true.

A full memory is emptied to disk. With no room there either and no database to wait for, the backlog is *stalled*: who
receives must end the session and wait for room.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.ingest.outage import Outage
from kalshi_platform.gatherer.ingest.puts import Puts
from kalshi_platform.gatherer.ingest.sizes import memory_of
from kalshi_platform.gatherer.ingest.writer_counters import WriterCounters
from kalshi_platform.gatherer.journal.spool import Spool
from kalshi_platform.gatherer.journal.spool_alarm import SpoolAlarm
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.records import Record
from kalshi_platform.monitoring.event_log import event_logger

_CHECK_S = 0.5
# After a stall the spool must have that much room again: else the next one would come with the first records.
_ROOM_AGAIN = 0.9
_log = event_logger(__name__)


class Backlog:
    """Memory and spool of one writer. `put` may be called from any thread, what is marked so only by the writer's."""

    def __init__(
        self,
        settings: GathererSettings,
        clock: Clock,
        spool: Spool,
        outage: Outage,
        counters: WriterCounters,
        ending: threading.Event,
    ) -> None:
        """Once `ending` is set, nobody is held up any more."""
        self.changed = threading.Condition()
        """Notified when there is something to write, and when there is room again."""
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

    # -- any thread

    def put(self, records: Sequence[Record]) -> None:
        """Take records, in their order. A full memory costs a write to disk or, when that fails, some waiting.

        It waits for at most `stall_patience_s`, and not at all when the database is known to be away: then the backlog
        is stalled, and what is put nevertheless (the end of a session) is kept in memory.
        """
        size = memory_of(records)
        with self.changed:
            before = len(self._queue.records)
            self._queue.add(records, size)
            self._counters.records_put += len(records)
            if self.oldest_put is None:
                self.oldest_put = self._clock.monotonic()
            self._count_held()
            full = self._is_full()
            if full and not self.is_stalled:
                self._spill()
            if full or before == 0 or self.is_worth_a_commit():
                self.changed.notify_all()
            if self._is_full() and not self.is_stalled:
                self._wait_or_stall()

    def wait_for_room(self) -> None:
        """Return when records can be taken again, or when it is over."""
        with self.changed:
            while self.is_stalled and not self._is_over():
                self.changed.wait(_CHECK_S)

    def queued(self) -> int:
        """Records in memory that are neither committed nor on disk."""
        with self.changed:
            in_flight = 0 if self._in_flight_on_disk else len(self._in_flight.records)
            return len(self._queue.records) + in_flight

    def held_bytes(self) -> int:
        """About the memory of all records that are not committed, what is being written included."""
        with self.changed:
            return self._queue.size + self._in_flight.size + self._replaying[1]

    def is_settled(self) -> bool:
        """Whether everything that was put is committed."""
        with self.changed:
            return not self._queue.records and not self._in_flight.records and self.spool.is_empty()

    # -- the writer's thread

    def waiting(self) -> int:
        """Records that nobody has begun to write (the condition is held)."""
        return len(self._queue.records)

    def is_worth_a_commit(self) -> bool:
        """Whether so much waits that it should be written at once (the condition is held)."""
        settings = self._settings
        return len(self._queue.records) >= settings.flush_rows or self._queue.size >= settings.flush_bytes

    def take(self) -> list[Record]:
        """Return what is to be committed now; nothing when older records are on disk: then these go behind them.

        `landed` or `failed` must follow; if neither came after the last time, what was taken then is written again.
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
        """What was taken is committed."""
        with self.changed:
            self._in_flight = Puts()
            self._in_flight_on_disk = False
            self._look_for_room()

    def failed(self) -> bool:
        """What was taken is not committed: it goes to disk. Return False when it had to go back to memory."""
        with self.changed:
            if not self._in_flight.records:
                return True
            stored = self._keep_in_flight()
            self._take_back()
            return stored

    def replaying(self, count: int, size: int) -> None:
        """So many records of the spool, of `size` bytes, are in memory just now."""
        with self.changed:
            self._replaying = count, size
            self._count_held()

    def spill(self, *, last: bool = False) -> bool:
        """Put everything in memory on disk; return whether nothing is left. `last`: whatever the limits say."""
        with self.changed:
            return self._spill(last=last)

    def watch_disk(self) -> None:
        """Look how full the spool is, and whether there is room again."""
        with self.changed:
            self._alarm.check_usage(self._counters.disk_error)
            self._look_for_room()

    def close(self) -> None:
        """Let go whoever waits."""
        with self.changed:
            self.is_closing = True
            self.changed.notify_all()

    # -- the condition is held

    def _is_full(self) -> bool:
        settings = self._settings
        return len(self._queue.records) >= settings.queue_rows or self._queue.size >= settings.queue_bytes

    def _is_over(self) -> bool:
        return self.is_closing or self._ending.is_set()

    def _count_held(self) -> None:
        counters, (rows, size) = self._counters, self._replaying
        held = len(self._queue.records) + len(self._in_flight.records) + rows
        counters.most_held = max(counters.most_held, held)
        counters.most_held_bytes = max(counters.most_held_bytes, self._queue.size + self._in_flight.size + size)

    def _take_back(self) -> None:
        """What was taken and is not on disk either goes back to memory."""
        if self._in_flight.records and not self._in_flight_on_disk:
            self._in_flight.put_before(self._queue)
            self.oldest_put = self._clock.monotonic()
        self._in_flight = Puts()
        self._in_flight_on_disk = False

    def _spill(self, *, last: bool = False) -> bool:
        if not self._keep_in_flight(last=last) or not self._store(self._queue, last=last):
            return False
        self.oldest_put = None
        self._look_for_room()
        return True

    def _keep_in_flight(self, *, last: bool = False) -> bool:
        """Put what is being committed on disk: whatever else goes there is newer. If it is committed, too, no harm."""
        if self._in_flight.records and not self._in_flight_on_disk:
            copy = Puts()
            self._in_flight.put_before(copy)
            # All or nothing: what is stored twice is written twice, but a part of it would be out of order.
            if not self._store(copy, last=last, at_once=True):
                return False
            self._in_flight_on_disk = True
        return True

    def _store(self, puts: Puts, *, last: bool, at_once: bool = False) -> bool:
        """Move records to disk; return whether all went. What did not stays where it was."""
        settings = self._settings
        ends = [len(puts.records)] if at_once else list(puts.parts(settings.flush_rows, settings.flush_bytes))
        done = 0
        try:
            for end in ends:
                self.spool.append(puts.records[done:end], last=last)
                self._counters.spooled += end - done
                done = end
        except Exception as error:  # noqa: BLE001 - whatever it is, the records stay where they are
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
        _log.critical("recording_stalled", gatherer=self._settings.name, error=self.trouble())

    def trouble(self) -> str:
        """What takes no records, and what helps; for a backlog that is stalled."""
        database = self._counters.database_error or "too slow"
        return (
            f"memory is full, the database takes nothing ({database}), and neither does the disk"
            f" ({self._counters.disk_error}). Bring the database back; or make room on the disk, or raise"
            " KALSHI_SPOOL_MAX_GIB. Coverage ends here until then"
        )

    def _count_spool_alarm(self) -> None:
        self._counters.spool_alarms += 1

    def _look_for_room(self) -> None:
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
