"""Appends blocks of frames and marks to the segments of a gatherer's journal.

What `append` returned from can be read by another process, also when this one ends hard; `sync` makes it survive a
power cut. One block is one write: where a disk takes only a part of it, that part is cut off again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kalshi_platform.clock import Clock
from kalshi_platform.errors import ConfigurationError, JournalUnwritable
from kalshi_platform.gatherer.journal.block_format import (
    FORMAT_VERSION,
    RESTATED,
    FormatError,
    OtherVersion,
    Position,
    SegmentInfo,
    encode_body,
    encode_header,
    encode_segment_header,
)
from kalshi_platform.gatherer.journal.open_marks import OpenMarks
from kalshi_platform.gatherer.journal.segments import (
    bytes_of_segments,
    fsync_folder,
    list_segments,
    read_segment_info,
    segment_name,
)
from kalshi_platform.market.frames import FrameBatch, GathererStarted
from kalshi_platform.monitoring.event_log import event_logger

NO_SESSION = 0
"""`session_id` of blocks of REST answers and of the process's own marks."""
RETRY_S = 0.5
"""Pause between two attempts to write to a journal that was unwritable."""
_HOUR_NS = 3_600 * 10**9
# A clock that steps back by seconds must not begin a segment for each step.
_STEPS_BACK_NS = 60 * 10**9
# Of the capacity this part stays free while anything can go.
_SPARE_SHARE = 0.25
_MEASURE_EVERY_BYTES = 1024**2
_MEASURE_EVERY_S = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_fdatasync = getattr(os, "fdatasync", os.fsync)
_log = event_logger(__name__)


@dataclass(frozen=True)
class JournalLimits:
    """Holds the size of a segment and what the journal may use of its disk, in bytes."""

    segment_bytes: int = 64 * 1024**2
    max_bytes: int = 100 * 1024**3
    min_free_bytes: int = 1024**3


DEFAULT_LIMITS = JournalLimits()


@dataclass(frozen=True)
class JournalUsage:
    """Holds the bytes on disk and the capacity, and by how many bytes there is less room than there should be."""

    used: int
    capacity: int
    excess: int = 0

    @property
    def share(self) -> float:
        """Return the used share of the capacity: 0 (empty) … 1 (full)."""
        return self.used / self.capacity if self.capacity > 0 else 1.0


def open_journal(
    folder: Path,
    gatherer: str,
    clock: Clock,
    *,
    limits: JournalLimits = DEFAULT_LIMITS,
    code_version: str = "",
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> JournalWriter:
    """Open the journal in `folder`, which is made where there is none; one process at a time.

    The first block is written, unless the journal is unwritable now (`blocked_reason`). Raises ConfigurationError where
    the folder is another gatherer's, of another format version, or cannot be used.
    """
    where = f"gatherer {gatherer}: its journal {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        segments = list_segments(folder)
        info = _newest_info(segments, where, gatherer)
    except OSError as error:
        raise ConfigurationError(
            [f"{where} cannot be read ({error.strerror}): let this user read and write it, or set KALSHI_STATE_DIR"]
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(
            [
                f"{where} cannot be written: let this user write it (is its disk mounted read-only?),"
                " or set KALSHI_STATE_DIR"
            ]
        )
    journal_id = random.SystemRandom().getrandbits(63) if info is None else info.journal_id
    following = max(segments, default=0) + 1
    journal = JournalWriter(folder, gatherer, clock, journal_id, following, limits, code_version, free_bytes)
    journal.begin()
    return journal


def _newest_info(segments: dict[int, Path], where: str, gatherer: str) -> SegmentInfo | None:
    """Return the newest header that can be read, None without one. Raises ConfigurationError, OSError."""
    for path in reversed(segments.values()):
        try:
            info = read_segment_info(path)
        except OtherVersion as error:
            remedy = (
                "update kalshi-platform"
                if error.version > FORMAT_VERSION
                else "run the version that wrote it until everything is in the database, then move the folder away"
            )
            raise ConfigurationError(
                [f"{where} has format version {error.version}, this program has {FORMAT_VERSION}: {remedy}"]
            ) from error
        except (FormatError, FileNotFoundError):
            continue
        if info.gatherer != gatherer:
            raise ConfigurationError(
                [
                    f"{where} is that of gatherer {info.gatherer}: give each gatherer a folder of its own"
                    " (KALSHI_STATE_DIR), or move this one away"
                ]
            )
        return info
    return None


class JournalWriter:
    """Writes one gatherer's journal; thread-safe. Its first block has the mark `GathererStarted`.

    While it is unwritable (`blocked_reason`), frames are refused and marks without frames are kept in memory, to be
    written first when there is room. A refused batch counts as marks of its session, so that the next block of the
    session shows that something is missing.
    """

    def __init__(
        self,
        folder: Path,
        gatherer: str,
        clock: Clock,
        journal_id: int,
        first_segment: int,
        limits: JournalLimits,
        code_version: str,
        free_bytes: Callable[[Path], int],
    ) -> None:
        """Use `open_journal`, which checks the folder."""
        self.folder = folder
        self.journal_id = journal_id
        self.appended = threading.Condition()
        """Notified after each block; `end` has moved then."""
        self.end = Position(first_segment, 0)
        """Where the next block will begin, or the next segment."""
        self._gatherer = gatherer
        self._clock = clock
        self._limits = limits
        self._code_version = code_version
        self._free_bytes = free_bytes
        self._next_segment = first_segment
        self._descriptor: int | None = None
        self._hour_ns = 0
        self._blocks = 0
        self._former_blocks: int | None = None
        # Descriptors of finished segments that were not synced yet.
        self._unsynced: list[int] = []
        self._open = OpenMarks()
        started = FrameBatch()
        started.mark(GathererStarted(clock.now_ns(), gatherer, code_version))
        self._kept: list[tuple[int, FrameBatch]] = [(NO_SESSION, started)]
        self.waits_for: str | None = None
        """What must take the oldest segment before it can go; None where it only waits for its time."""
        self.stalls = 0
        """How often it became unwritable."""
        self._blocked: JournalUnwritable | None = None
        self._retry_s = 0.0
        self._used = self._free = 0
        self._measured_s = float("-inf")
        self._unmeasured_bytes = self._appended_bytes = 0

    @property
    def blocked_reason(self) -> str | None:
        """Return why nothing can be written, with the remedy; None while it can."""
        blocked = self._blocked
        return None if blocked is None else str(blocked)

    def begin(self) -> None:
        """Write the first block, if that is possible now; else it is written first later."""
        with self.appended:
            self._measure()
            try:
                self._write_kept()
            except JournalUnwritable as error:
                self._block(error)

    def append(self, session_id: int, batch: FrameBatch) -> Position:
        """Write one block; return where it ends. Other processes can read it when this returns.

        Raises JournalUnwritable where frames could not be written: nothing of the batch is in the journal then. Marks
        without frames are kept, and written first when there is room. Raises ValueError for what no block can hold; it
        counts as refused, too.
        """
        if not batch:
            return self.end
        with self.appended:
            self._open.announce(batch)
            if self._blocked is None:
                try:
                    self._write_kept()
                    self._write(session_id, batch)
                except JournalUnwritable as error:
                    self._block(error)
                except ValueError:
                    self._open.count_refused(session_id, batch)
                    raise
            if self._blocked is not None:
                self._refuse(session_id, batch, self._blocked)
            return self.end

    def is_writable(self) -> bool:
        """Return whether blocks can be written; after a failure this tries again, about each half second."""
        if self._blocked is None:
            return True
        with self.appended:
            if self._blocked is None:
                return True
            if self._clock.monotonic() < self._retry_s:
                return False
            try:
                self._measure()
                self._require_room(self._room_to_begin())
                self._write_kept()
                # An empty block: nothing else shows for certain that the disk takes what is written.
                self._write(NO_SESSION, FrameBatch())
            except JournalUnwritable as error:
                self._block(error)
                return False
            self._blocked = None
            return True

    def sync(self) -> None:
        """Make what was appended survive a power cut (fsync). Raises JournalUnwritable."""
        failure: OSError | None = None
        with self.appended:
            if self._descriptor is not None and _is_removed(self.folder / segment_name(self.end.segment)):
                # Nobody else can read what would be appended to it.
                _log.error("segment_removed_while_written", folder=str(self.folder), segment=self.end.segment)
                self._finish_segment()
            try:
                descriptors = [] if self._descriptor is None else [os.dup(self._descriptor)]
                descriptors, self._unsynced = [*self._unsynced, *descriptors], []
            except OSError as error:
                descriptors, failure = [], error
        for descriptor in descriptors:
            try:
                _fdatasync(descriptor)
            except OSError as error:
                failure = error
            finally:
                os.close(descriptor)
        if failure is not None:
            with self.appended:
                # The kernel may have dropped what it could not write: nothing is to follow it in this segment.
                self._finish_segment()
                unwritable = self._unwritable(failure)
                self._block(unwritable)
            raise unwritable from failure

    def bytes_on_disk(self) -> int:
        """Return the size of all segments, in bytes."""
        return self.fill().used

    def fill(self) -> JournalUsage:
        """Return how full it is, by its own limit or by the disk's free space, whichever is less."""
        # Thousands of segments take a while, in which others append: what they did counts on top, some of it twice.
        before = self._appended_bytes
        with contextlib.suppress(OSError):
            measured = bytes_of_segments(self.folder)
            with self.appended:
                self._used = measured + self._appended_bytes - before
        with self.appended:
            self._measure_disk()
            capacity = min(self._limits.max_bytes, self._used + max(0, self._free))
            room = min(self._limits.max_bytes - self._used, self._free)
            spare = max(int(_SPARE_SHARE * capacity), self._room_to_begin())
            return JournalUsage(self._used, capacity, max(0, spare - room))

    def close(self) -> None:
        """Write the marks that were kept if that is possible, sync, and close the files."""
        with self.appended:
            with contextlib.suppress(JournalUnwritable):
                self._write_kept()
            self._finish_segment()
        with contextlib.suppress(JournalUnwritable):
            self.sync()

    # -- under the lock

    def _write_kept(self) -> None:
        while self._kept:
            session_id, batch = self._kept[0]
            try:
                self._write(session_id, batch)
            except ValueError as error:
                # Nothing may wait behind it for ever.
                self._open.count_refused(session_id, batch)
                _log.error("marks_not_written", folder=str(self.folder), session=session_id, error=error)
            self._kept.pop(0)

    def _refuse(self, session_id: int, batch: FrameBatch, blocked: JournalUnwritable) -> None:
        """Keep marks without frames; count that frames are missing, and raise."""
        if not batch.payloads:
            self._kept.append((session_id, batch))
            return
        self._open.count_refused(session_id, batch)
        raise JournalUnwritable(blocked.reason, blocked.remedy)

    def _block(self, error: JournalUnwritable) -> None:
        self.stalls += self._blocked is None
        self._blocked = error
        self._retry_s = self._clock.monotonic() + RETRY_S

    def _write(self, session_id: int, batch: FrameBatch) -> None:
        """Write a block, in a new segment where the present one is full or of another hour."""
        received_at_ns = batch.received_at_ns[0] if batch.received_at_ns else self._clock.now_ns()
        body = encode_body(batch, self._open.streams)
        self._require_room(body.size)
        if (
            self._descriptor is None
            or self.end.offset >= self._limits.segment_bytes
            or not -_STEPS_BACK_NS <= received_at_ns - self._hour_ns < _HOUR_NS
        ):
            self._finish_segment()
            self._descriptor = self._begin_segment(received_at_ns)
        header = encode_header(
            body,
            number=self._blocks,
            session_id=session_id,
            marks_before=self._open.marks_before(session_id),
            received_at_ns=received_at_ns,
        )
        self._write_parts(self._descriptor, (header, *body.parts), body.size)
        self._blocks += 1
        self._open.apply(session_id, batch)
        self.appended.notify_all()

    def _write_parts(self, descriptor: int, parts: tuple[bytes, ...], size: int) -> None:
        segment, offset = self.end
        try:
            _write_fully(descriptor, parts, size)
        except OSError as error:
            # A part of a block must not stand before the next one.
            try:
                os.ftruncate(descriptor, offset)
            except OSError:
                self._finish_segment()
            raise self._unwritable(error) from error
        self.end = Position(segment, offset + size)
        self._count(size)

    def _begin_segment(self, received_at_ns: int) -> int:
        """Create the next segment, with its header and what is open in one write; return its descriptor."""
        descriptor, path, number = self._create_file()
        info = SegmentInfo(
            journal_id=self.journal_id,
            gatherer=self._gatherer,
            number=number,
            created_at_ns=self._clock.now_ns(),
            received_from_ns=received_at_ns,
            code_version=self._code_version,
            former_blocks=self._former_blocks,
        )
        restated = self._restated(received_at_ns)
        content = b"".join((encode_segment_header(info), *restated))
        try:
            _write_fully(descriptor, (content,), len(content))
            # No database may hold a place in a segment that a power cut takes away: another would get its number.
            _fdatasync(descriptor)
            fsync_folder(self.folder)
        except OSError as error:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            raise self._unwritable(error) from error
        self.end = Position(number, len(content))
        self._next_segment = number + 1
        self._blocks = len(restated)
        self._hour_ns = received_at_ns - received_at_ns % _HOUR_NS
        self._count(len(content))
        return descriptor

    def _create_file(self) -> tuple[int, Path, int]:
        """Create the file of the next segment; return its descriptor, path and number."""
        while True:
            number = self._next_segment
            path = self.folder / segment_name(number)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                return os.open(path, flags, 0o666), path, number
            except FileExistsError:
                # What could not be written to its end, nor removed.
                self._next_segment, self._former_blocks = number + 1, None
            except FileNotFoundError as error:
                # The folder was removed; one that is missing with the gatherer's may be a disk that is not mounted.
                try:
                    self.folder.mkdir()
                except OSError:
                    raise self._unwritable(error) from error
            except OSError as error:
                raise self._unwritable(error) from error

    def _restated(self, received_at_ns: int) -> list[bytes]:
        """Return a block for each open session, with the marks that opened it and its streams."""
        blocks: list[bytes] = []
        for session_id, batch in self._open.restated():
            body = encode_body(batch, self._open.streams)
            header = encode_header(
                body,
                number=len(blocks),
                session_id=session_id,
                marks_before=self._open.marks_before(session_id),
                received_at_ns=received_at_ns,
                flags=RESTATED,
            )
            blocks.append(b"".join((header, *body.parts)))
        return blocks

    def _finish_segment(self) -> None:
        """Leave the present segment; `sync` makes it durable and closes it."""
        if self._descriptor is not None:
            self._unsynced.append(self._descriptor)
            self._descriptor = None
            self._former_blocks = self._blocks

    def _room_to_begin(self) -> int:
        """Return for how many bytes there must be room: one block's would make sessions begin and end in turns."""
        return min(self._limits.segment_bytes, self._limits.max_bytes // 10)

    def _require_room(self, size: int) -> None:
        """Raise JournalUnwritable where so many bytes more are not allowed; the disk is measured now and then."""
        stale = self._unmeasured_bytes >= _MEASURE_EVERY_BYTES
        if stale or self._clock.monotonic() - self._measured_s >= _MEASURE_EVERY_S:
            self._measure_disk()
        if self._used + size > self._limits.max_bytes:
            self._measure()
            if self._used + size > self._limits.max_bytes:
                raise JournalUnwritable(
                    f"the journal {self.folder} has {_gib(self._used)} and may have {_gib(self._limits.max_bytes)}",
                    f"{self._remedy_of_waiting()}raise KALSHI_JOURNAL_MAX_GIB; recording begins again by itself",
                )
        if size > self._free:
            raise JournalUnwritable(
                f"the disk of the journal {self.folder} has no more than the {_gib(self._limits.min_free_bytes)} that"
                " stay free",
                f"{self._remedy_of_waiting()}make room on it, or lower KALSHI_JOURNAL_MIN_FREE_GIB; recording begins"
                " again by itself",
            )

    def _remedy_of_waiting(self) -> str:
        return "" if self.waits_for is None else f"make {self.waits_for} take what waits, or "

    def _count(self, size: int) -> None:
        """Count bytes that were appended since the disk was measured."""
        self._used += size
        self._free -= size
        self._unmeasured_bytes += size
        self._appended_bytes += size

    def _measure(self) -> None:
        """Measure what the journal uses: other parts of the platform compress and remove segments."""
        with contextlib.suppress(OSError):
            self._used = bytes_of_segments(self.folder)
        self._measure_disk()

    def _measure_disk(self) -> None:
        """Measure how many bytes more the disk may give; what cannot be measured does not limit."""
        self._free = self._limits.segment_bytes
        with contextlib.suppress(OSError):
            self._free = self._free_bytes(self.folder) - self._limits.min_free_bytes
        self._measured_s = self._clock.monotonic()
        self._unmeasured_bytes = 0

    def _unwritable(self, error: OSError) -> JournalUnwritable:
        what = f"the journal {self.folder} cannot be written ({error.strerror})"
        if error.errno in _FULL:
            remedy = "make room on its disk; recording begins again by itself"
        elif error.errno == errno.ENOENT:
            remedy = "bring its folder back (is its disk mounted?); recording begins again by itself"
        elif error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            remedy = "let this user write the folder (is its disk mounted read-only?); recording begins again by itself"
        else:
            remedy = "see to its disk; recording begins again by itself"
        return JournalUnwritable(what, remedy)


def _write_fully(descriptor: int, parts: tuple[bytes, ...], size: int) -> None:
    """Write parts of together `size` bytes. Raises OSError where a part of them may be written."""
    written = os.writev(descriptor, parts)
    if written < size:
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _is_removed(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ENOENT
    return False


def _gib(size: int) -> str:
    return f"{size / 1024**3:.2f} GiB"
