"""Stores records on disk while the database cannot be written: numbered files of checked blocks, read in order.

A block is on disk (fsync) before `append` returns. A file is removed only when everything in it is in the database, so
a crash repeats some writing and loses nothing. The folder has a limit of bytes, and a part of the disk stays free;
beyond either `append` raises SpoolFull, like a disk that is full.

A file of which a part could not be read is kept as `NUMBER.damaged` for an operator: it is not read again and does not
count for the limit, though it does use the disk's free space.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from kalshi_platform.gatherer.journal.record_codec import encode_records
from kalshi_platform.gatherer.journal.spool_file import (
    MAGIC,
    BlockReader,
    CorruptRange,
    block_size,
    write_all,
    write_block,
)
from kalshi_platform.market.records import Record
from kalshi_platform.monitoring.event_log import event_logger

MAX_BYTES = 20 * 1024**3
MIN_FREE_BYTES = 1024**3
_FIRST = 1_000_000_000
_SUFFIX = ".spool"
_DAMAGED = ".damaged"
# An error of the device may pass; after so many in a row the file is given up.
_READ_ATTEMPTS = 5
LEVELS = (0.5, 0.8, 0.95, 1.0)
"""Shares of the capacity at which an alarm is logged."""
# A level is reported again only after the spool was emptier than that by so much.
_LEAVING = 0.1
_log = event_logger(__name__)


class SpoolFull(OSError):
    """Reports that the spool has reached its limit, or the disk has no more than what must stay free."""


@dataclass(frozen=True)
class SpoolUsage:
    """Holds the bytes on disk and the capacity."""

    used: int
    capacity: int

    @property
    def share(self) -> float:
        """Return the used share of the capacity: 0 (empty) … 1 (full)."""
        return self.used / self.capacity if self.capacity > 0 else 1.0


def bytes_waiting(folder: Path) -> int:
    """Return the bytes of records in a spool that no process has open; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.glob(f"*{_SUFFIX}"))


class Spool:
    """Queues blocks of records in `folder`. Thread-safe; one process at a time."""

    def __init__(
        self,
        folder: Path,
        segment_bytes: int = 16 * 1024 * 1024,
        *,
        max_bytes: int = MAX_BYTES,
        min_free_bytes: int = 0,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """Open the spool; a file ends at about `segment_bytes`, and `min_free_bytes` of the disk stay free."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._free_bytes = free_bytes
        self._lock = threading.RLock()
        self._writing: FileIO | None = None
        self._blocks_written = 0
        self._reading: BlockReader | None = None
        self._read_to: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._sizes: dict[int, int] = {}
        for number in self._file_numbers(_SUFFIX):
            # Another process that only lists the folder may find a file that is just being removed.
            with contextlib.suppress(FileNotFoundError):
                self._sizes[number] = self._path(number).stat().st_size
        self._numbers = sorted(self._sizes)
        # Numbers never restart: an older file must not come after a newer one.
        self._next = max((*self._numbers, *self._file_numbers(_DAMAGED)), default=_FIRST - 1) + 1
        self._damaged: set[int] = set()
        self._failed_reads: Counter[int] = Counter()
        # File numbers have no gaps. Where a file was removed: the number after it → the missing number.
        self._gaps = {
            high: low + 1 for low, high in zip(self._numbers, self._numbers[1:], strict=False) if high > low + 1
        }
        self._reported_gap: int | None = None
        self.damages = 0
        """Count of places that could not be read."""

    def is_empty(self) -> bool:
        """Return whether no records are on disk."""
        return not self._numbers

    def bytes_on_disk(self) -> int:
        """Return the size of all files, in bytes."""
        with self._lock:
            return sum(self._sizes.values())

    def fill(self) -> SpoolUsage:
        """Return how full it is, by its own limit or by the disk's free space, whichever is less."""
        with self._lock:
            used = self.bytes_on_disk()
            try:
                free = self._free_bytes(self._folder)
            except OSError:
                free = 0
            return SpoolUsage(used, min(self._max_bytes, used + max(0, free - self._min_free_bytes)))

    def last_number(self) -> int | None:
        """Return the number of the newest file, None without one."""
        with self._lock:
            return self._numbers[-1] if self._numbers else None

    def oldest_number(self) -> int | None:
        """Return the number of the file that is read next, None without one."""
        with self._lock:
            return self._numbers[0] if self._numbers else None

    def append(self, records: Sequence[Record], *, last: bool = False) -> None:
        """Append a block, which is on disk when this returns. Raises OSError (SpoolFull at a limit).

        `last`: the limits do not apply, because there is no other place left for these records.
        """
        if not records:
            return
        payload = encode_records(records)
        with self._lock:
            if not last:
                self._require_room(len(MAGIC) + block_size(payload))
            if self._writing is None:
                number = self._next
                self._writing, self._blocks_written = self._create(number), 0
                self._next += 1
                self._numbers.append(number)
                self._sizes[number] = len(MAGIC)
            size = self._writing.tell()
            try:
                write_block(self._writing, self._blocks_written, payload)
            except OSError:
                # A full disk: a part of the block must not stand before the next one.
                with contextlib.suppress(OSError):
                    self._writing.truncate(size)
                    self._writing.seek(size)
                raise
            self._blocks_written += 1
            self._sizes[self._numbers[-1]] = self._writing.tell()
            if self._writing.tell() >= self._segment_bytes:
                self._end_file()

    def next_block(self) -> list[Record] | CorruptRange | None:
        """Return the oldest block that was not returned yet, or the corrupt range in its place; None at the end.

        Blocks that follow a corrupt range were written later. Remove files with `drop_read`. Raises OSError where a
        file cannot be read now; `rewind` then, and try again: after some attempts the unreadable file is a corrupt
        range.
        """
        with self._lock:
            for number in list(self._numbers):
                if self._read_to is not None and number <= self._read_to:
                    continue
                if number in self._gaps and self._reported_gap != number:
                    self._reported_gap = number
                    return self._report(_missing_file(self._path(self._gaps[number])))
                if self._writing is not None and number == self._numbers[-1]:
                    # A file that is read is no longer written.
                    self._end_file()
                try:
                    if self._reading is None:
                        self._reading = BlockReader(self._path(number))
                    block = self._reading.next()
                except OSError as error:
                    if not self._is_lost(number, error):
                        raise
                    self._reading, self._read_to = None, number
                    self._damaged.add(number)
                    return self._report(CorruptRange(self._path(number).name, 0, 0, str(error), b"", 0))
                if isinstance(block, CorruptRange):
                    if not block.is_torn:
                        self._damaged.add(number)
                    return self._report(block)
                if block is not None:
                    return block
                self._reading = None
                self._read_to = number
            return None

    def drop_read(self) -> None:
        """Remove the files that were read to their end, after everything returned so far was committed."""
        with self._lock:
            before = len(self._numbers)
            while self._numbers and self._read_to is not None and self._numbers[0] <= self._read_to:
                self._remove(self._numbers[0])
                number = self._numbers.pop(0)
                self._sizes.pop(number)
                self._gaps.pop(number, None)
            if not self._numbers:
                self._read_to = None
            if len(self._numbers) < before:
                # A removed file must not reappear after a power cut, behind files written from here on.
                self._fsync_folder()

    def close(self) -> None:
        """Close the files; their records stay for the next start."""
        with self._lock:
            self._end_file()
            self.rewind()

    def rewind(self) -> None:
        """Read again from the oldest block, because what was returned since `drop_read` was not committed."""
        with self._lock:
            self._reading = None
            self._read_to = None
            self._reported_gap = None
            self._damaged.clear()

    def _file_numbers(self, suffix: str) -> list[int]:
        """Return the numbers of the files with this suffix."""
        stems = [path.stem for path in self._folder.glob(f"*{suffix}")]
        return [int(stem) for stem in stems if stem.isascii() and stem.isdigit()]

    def _is_lost(self, number: int, error: OSError) -> bool:
        """Return whether a file that could not be read is given up."""
        if error.errno == errno.EIO:
            self._failed_reads[number] += 1
            return self._failed_reads[number] >= _READ_ATTEMPTS
        return error.errno == errno.ENOENT

    def _remove(self, number: int) -> None:
        """Remove a file that was read; one that was damaged is renamed instead, and not read again."""
        path = self._path(number)
        if number in self._damaged:
            with contextlib.suppress(FileNotFoundError):
                path.rename(path.with_suffix(_DAMAGED))
                _log.warning("spool_file_kept", spool_file=path.name, kept_as=path.with_suffix(_DAMAGED))
        else:
            path.unlink(missing_ok=True)
        self._damaged.discard(number)
        self._failed_reads.pop(number, None)

    def _require_room(self, size: int) -> None:
        used = self.bytes_on_disk()
        if used + size > self._max_bytes:
            raise SpoolFull(f"the spool {self._folder} holds {_gib(used)} and may hold {_gib(self._max_bytes)}")
        free = self._free_bytes(self._folder)
        if free - size < self._min_free_bytes:
            raise SpoolFull(
                f"the disk of {self._folder} has {_gib(free)} free, of which {_gib(self._min_free_bytes)} stay free"
            )

    def _report(self, damage: CorruptRange) -> CorruptRange:
        self.damages += 1
        _log.warning("spool_file_damaged", spool_file=damage.file, error=damage.what, is_torn=damage.is_torn)
        return damage

    def _end_file(self) -> None:
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def _create(self, number: int) -> FileIO:
        path = self._path(number)
        # Unbuffered: bytes that a full disk refused must not be written later, out of a buffer.
        file = path.open("xb", buffering=0)
        try:
            write_all(file, MAGIC)
            self._fsync_folder()
        except OSError:
            file.close()
            path.unlink(missing_ok=True)
            raise
        return file

    def _fsync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}{_SUFFIX}"


class SpoolAlarm:
    """Logs each fill level of a spool when it is reached. For one thread at a time."""

    def __init__(self, name: str, spool: Spool, on_level: Callable[[], None]) -> None:
        """Set up the alarm; `on_level()` is called for each level reached."""
        self._name = name
        self._spool = spool
        self._on_level = on_level
        self._reached = 0

    def check_usage(self, refused: str | None) -> None:
        """Compare the fill with the levels; a spool that just `refused` records (for this reason) counts as full."""
        fill = self._spool.fill()
        share = 1.0 if refused is not None else fill.share if fill.used else 0.0
        reached = sum(share >= level for level in LEVELS)
        if reached > self._reached:
            self._reached = reached
            self._on_level()
            if refused is not None:
                _log.critical("spool_unwritable", gatherer=self._name, error=refused, consequence="only memory is left")
            else:
                _log.error(
                    "spool_filling",
                    gatherer=self._name,
                    percent=round(100 * LEVELS[reached - 1]),
                    used_bytes=fill.used,
                    capacity_bytes=fill.capacity,
                    consequence="records are lost when it is full before the database is back",
                )
        while self._reached and share < LEVELS[self._reached - 1] - _LEAVING:
            self._reached -= 1


def _missing_file(path: Path) -> CorruptRange:
    return CorruptRange(path.name, 0, 0, "the file is gone", b"", 0)


def _gib(size: int) -> str:
    return f"{size / 1024**3:.2f} GiB"
