"""Records on disk while the database cannot take them: numbered files of checked blocks, read in order, then removed.

A block is on disk (fsync) before `append` returns. A file goes only when everything in it is in the database, so a
crash repeats some writing and loses nothing. The folder may hold so many bytes, and so much of the disk stays free;
beyond either `append` raises SpoolFull, like a disk that is full.

A file of which something could not be read is kept as `NUMBER.damaged` for whoever wants to look: it is not read again
and does not count for the limit, though it does take of the disk's free space.
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

from kalshi_platform.gatherer.journal.spool_file import (
    MAGIC,
    BlockReader,
    CorruptRange,
    block_size,
    encoded_block,
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
# An error of the device may pass; after so many it is believed.
_READ_ATTEMPTS = 5
_log = event_logger(__name__)


class SpoolFull(OSError):
    """The spool has reached its limit, or the disk has no more than what must stay free."""


@dataclass(frozen=True)
class SpoolUsage:
    """How much waits on disk, and how much could: both in bytes."""

    used: int
    capacity: int

    @property
    def share(self) -> float:
        """0 (empty) … 1 (nothing more fits)."""
        return self.used / self.capacity if self.capacity > 0 else 1.0


def bytes_waiting(folder: Path) -> int:
    """Bytes of records in a spool that no process has open; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.glob(f"*{_SUFFIX}"))


class Spool:
    """A queue of record blocks in `folder`. Thread-safe; one process at a time."""

    def __init__(
        self,
        folder: Path,
        segment_bytes: int = 16 * 1024 * 1024,
        *,
        max_bytes: int = MAX_BYTES,
        min_free_bytes: int = 0,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """A file ends at about `segment_bytes`. `min_free_bytes` of the disk, as `free_bytes` tells, stay free."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._free_bytes = free_bytes
        self._lock = threading.RLock()
        self._writing: FileIO | None = None
        self._blocks_written = 0
        self._reading: BlockReader | None = None
        self._taken: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._sizes: dict[int, int] = {}
        for number in self._found(_SUFFIX):
            # Who only looks may meet a file that is just being removed.
            with contextlib.suppress(FileNotFoundError):
                self._sizes[number] = self._path(number).stat().st_size
        self._numbers = sorted(self._sizes)
        # Numbers never begin anew while the process lives: an older file must not stand behind a newer one.
        self._next = max((*self._numbers, *self._found(_DAMAGED)), default=_FIRST - 1) + 1
        self._damaged: set[int] = set()
        self._failed_reads: Counter[int] = Counter()
        # Files carry numbers without a gap: where one was taken away, the number of the file before which it stood.
        self._gaps = {
            high: low + 1 for low, high in zip(self._numbers, self._numbers[1:], strict=False) if high > low + 1
        }
        self._gap_told: int | None = None
        self.damages = 0
        """Places that could not be read."""

    def is_empty(self) -> bool:
        """Whether nothing waits on disk."""
        return not self._numbers

    def bytes_on_disk(self) -> int:
        """Size of all files."""
        with self._lock:
            return sum(self._sizes.values())

    def fill(self) -> SpoolUsage:
        """How full it is, by its own limit or by the disk's free space, whichever comes first."""
        with self._lock:
            used = self.bytes_on_disk()
            try:
                free = self._free_bytes(self._folder)
            except OSError:
                free = 0
            return SpoolUsage(used, min(self._max_bytes, used + max(0, free - self._min_free_bytes)))

    def last_number(self) -> int | None:
        """The number of the newest file."""
        with self._lock:
            return self._numbers[-1] if self._numbers else None

    def oldest_number(self) -> int | None:
        """The number of the file that is read next."""
        with self._lock:
            return self._numbers[0] if self._numbers else None

    def append(self, records: Sequence[Record], *, last: bool = False) -> None:
        """Put a block at the end; it is on disk when this returns. Raises OSError (SpoolFull at a limit).

        `last`: the limits do not hold, because there is no other place left for these records.
        """
        if not records:
            return
        payload = encoded_block(records)
        with self._lock:
            if not last:
                self._need_room(len(MAGIC) + block_size(payload))
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
                # A full disk: what was written of the block would be in the way of what comes after it.
                with contextlib.suppress(OSError):
                    self._writing.truncate(size)
                    self._writing.seek(size)
                raise
            self._blocks_written += 1
            self._sizes[self._numbers[-1]] = self._writing.tell()
            if self._writing.tell() >= self._segment_bytes:
                self._end_file()

    def next_block(self) -> list[Record] | CorruptRange | None:
        """Return the oldest block that was not taken yet, or what is lost in its place; None when there is nothing.

        Whatever follows a damage was written later. Remove files with `drop_read`. Raises OSError where a file cannot
        be read now; `rewind` then, and try again: after some attempts what the device does not give is a damage.
        """
        with self._lock:
            for number in list(self._numbers):
                if self._taken is not None and number <= self._taken:
                    continue
                if number in self._gaps and self._gap_told != number:
                    self._gap_told = number
                    return self._told(_gone(self._path(self._gaps[number])))
                if self._writing is not None and number == self._numbers[-1]:
                    # The file that is read is no longer written.
                    self._end_file()
                try:
                    if self._reading is None:
                        self._reading = BlockReader(self._path(number))
                    block = self._reading.next()
                except OSError as error:
                    if not self._is_lost(number, error):
                        raise
                    self._reading, self._taken = None, number
                    self._damaged.add(number)
                    return self._told(CorruptRange(self._path(number).name, 0, 0, str(error), b"", 0))
                if isinstance(block, CorruptRange):
                    if not block.is_torn:
                        self._damaged.add(number)
                    return self._told(block)
                if block is not None:
                    return block
                self._reading = None
                self._taken = number
            return None

    def drop_read(self) -> None:
        """Remove the files that were read to their end: everything returned so far is in the database."""
        with self._lock:
            before = len(self._numbers)
            while self._numbers and self._taken is not None and self._numbers[0] <= self._taken:
                self._remove(self._numbers[0])
                number = self._numbers.pop(0)
                self._sizes.pop(number)
                self._gaps.pop(number, None)
            if not self._numbers:
                self._taken = None
            if len(self._numbers) < before:
                # What is removed must not come back after a power cut, behind what is written from here on.
                self._fsync_folder()

    def close(self) -> None:
        """Close the files; what they hold stays for the next start."""
        with self._lock:
            self._end_file()
            self.rewind()

    def rewind(self) -> None:
        """Read again from the oldest block: what was returned since the last `drop_read` did not get anywhere."""
        with self._lock:
            self._reading = None
            self._taken = None
            self._gap_told = None
            self._damaged.clear()

    def _found(self, suffix: str) -> list[int]:
        """The numbers of the files with this suffix."""
        stems = [path.stem for path in self._folder.glob(f"*{suffix}")]
        return [int(stem) for stem in stems if stem.isascii() and stem.isdigit()]

    def _is_lost(self, number: int, error: OSError) -> bool:
        """Whether a file that could not be read is given up."""
        if error.errno == errno.EIO:
            self._failed_reads[number] += 1
            return self._failed_reads[number] >= _READ_ATTEMPTS
        return error.errno == errno.ENOENT

    def _remove(self, number: int) -> None:
        """Take a file away that is done with; one that was damaged is kept, but not to be read again."""
        path = self._path(number)
        if number in self._damaged:
            with contextlib.suppress(FileNotFoundError):
                path.rename(path.with_suffix(_DAMAGED))
                _log.warning("spool_file_kept", spool_file=path.name, kept_as=path.with_suffix(_DAMAGED))
        else:
            path.unlink(missing_ok=True)
        self._damaged.discard(number)
        self._failed_reads.pop(number, None)

    def _need_room(self, size: int) -> None:
        used = self.bytes_on_disk()
        if used + size > self._max_bytes:
            raise SpoolFull(f"the spool {self._folder} holds {_gib(used)} and may hold {_gib(self._max_bytes)}")
        free = self._free_bytes(self._folder)
        if free - size < self._min_free_bytes:
            raise SpoolFull(
                f"the disk of {self._folder} has {_gib(free)} free, of which {_gib(self._min_free_bytes)} stay free"
            )

    def _told(self, damage: CorruptRange) -> CorruptRange:
        self.damages += 1
        _log.warning("spool_file_damaged", spool_file=damage.file, error=damage.what, is_torn=damage.is_torn)
        return damage

    def _end_file(self) -> None:
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def _create(self, number: int) -> FileIO:
        path = self._path(number)
        # Unbuffered: what a full disk did not take must not come later, out of a buffer.
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


def _gone(path: Path) -> CorruptRange:
    return CorruptRange(path.name, 0, 0, "the file is gone", b"", 0)


def _gib(size: int) -> str:
    return f"{size / 1024**3:.2f} GiB"
