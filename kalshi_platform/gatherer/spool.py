"""Records on disk while the database cannot take them: numbered files of checked blocks, read in order, then removed.

File: 8 bytes of magic, then blocks of u32 length, u32 CRC-32, and the records (`record_codec`). A block is on disk
(fsync) before `append` returns. A torn or damaged tail, as a kill leaves it, ends a file; what stands before it is
read. A file goes only when everything in it is in the database, so a crash repeats some writing and loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from kalshi_platform.gatherer.record_codec import decode_records, encode_records
from kalshi_platform.market.records import Record

_MAGIC = b"KSPOOL01"
_HEADER = struct.Struct("<II")
_FIRST = 1_000_000_000
_SUFFIX = ".spool"
_log = logging.getLogger(__name__)


class Spool:
    """A queue of record blocks in `folder`. Thread-safe; one process at a time."""

    def __init__(self, folder: Path, segment_bytes: int = 16 * 1024 * 1024) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._lock = threading.RLock()
        self._writing: FileIO | None = None
        self._reading: BinaryIO | None = None
        self._taken: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._numbers = sorted(
            int(path.stem) for path in folder.glob(f"*{_SUFFIX}") if path.stem.isascii() and path.stem.isdigit()
        )
        self.damaged_blocks = 0
        """Files whose tail could not be read."""

    def is_empty(self) -> bool:
        """Whether nothing waits on disk."""
        return not self._numbers

    def bytes_on_disk(self) -> int:
        """Size of all files."""
        with self._lock:
            return sum(self._path(number).stat().st_size for number in self._numbers if self._path(number).exists())

    def last_number(self) -> int | None:
        """The number of the newest file."""
        with self._lock:
            return self._numbers[-1] if self._numbers else None

    def oldest_number(self) -> int | None:
        """The number of the file that is read next."""
        with self._lock:
            return self._numbers[0] if self._numbers else None

    def append(self, records: Sequence[Record]) -> None:
        """Put a block at the end; it is on disk when this returns."""
        if not records:
            return
        block = encode_records(records)
        with self._lock:
            if self._writing is None:
                number = self._numbers[-1] + 1 if self._numbers else _FIRST
                self._writing = self._create(number)
                self._numbers.append(number)
            size = self._writing.tell()
            try:
                _write(self._writing, block)
            except OSError:
                # A full disk: what was written of the block would hide everything after it.
                with contextlib.suppress(OSError):
                    self._writing.truncate(size)
                    self._writing.seek(size)
                raise
            if self._writing.tell() >= self._segment_bytes:
                self._writing.close()
                self._writing = None

    def prepend(self, records: Sequence[Record]) -> None:
        """Put a block before everything else (its commit failed while newer blocks were written)."""
        if not records:
            return
        with self._lock:
            if not self._numbers:
                self.append(records)
                return
            number = self._numbers[0] - 1
            with self._create(number) as file:
                try:
                    _write(file, encode_records(records))
                except OSError:
                    # A stray file would be in the way of the next one of this number.
                    self._path(number).unlink(missing_ok=True)
                    raise
            self._rewind()
            self._numbers.insert(0, number)

    def next_block(self) -> list[Record] | None:
        """Return the oldest block that was not taken yet, None when there is none. Remove files with `drop_read`."""
        with self._lock:
            for number in list(self._numbers):
                if self._taken is not None and number <= self._taken:
                    continue
                if self._reading is None:
                    if self._writing is not None and number == self._numbers[-1]:
                        # The file that is read is no longer written.
                        self._writing.close()
                        self._writing = None
                    self._reading = self._path(number).open("rb")
                    if self._reading.read(len(_MAGIC)) != _MAGIC:
                        self._damage(number, "it does not begin like a spool file")
                        self._reading.seek(0, os.SEEK_END)
                block = self._read_block(number, self._reading)
                if block is not None:
                    return block
                self._reading.close()
                self._reading = None
                self._taken = number
            return None

    def drop_read(self) -> None:
        """Remove the files that were read to their end: everything returned so far is in the database."""
        with self._lock:
            while self._numbers and self._taken is not None and self._numbers[0] <= self._taken:
                self._path(self._numbers.pop(0)).unlink(missing_ok=True)
            if not self._numbers:
                self._taken = None

    def close(self) -> None:
        """Close the files; what they hold stays for the next start."""
        with self._lock:
            if self._writing is not None:
                self._writing.close()
                self._writing = None
            self._rewind()

    def rewind(self) -> None:
        """Read again from the oldest block: what was returned since the last `drop_read` did not get anywhere."""
        with self._lock:
            self._rewind()

    def _rewind(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        self._taken = None

    def _read_block(self, number: int, file: BinaryIO) -> list[Record] | None:
        header = file.read(_HEADER.size)
        if not header:
            return None
        if len(header) == _HEADER.size:
            length, crc = _HEADER.unpack(header)
            block = file.read(length)
            if len(block) == length and zlib.crc32(block) == crc:
                try:
                    return decode_records(block)
                except ValueError as error:
                    self._damage(number, str(error))
                    return None
        self._damage(number, "its tail is torn")
        return None

    def _damage(self, number: int, what: str) -> None:
        self.damaged_blocks += 1
        _log.warning("spool file %s: %s; what stands before is used", self._path(number).name, what)

    def _create(self, number: int) -> FileIO:
        path = self._path(number)
        # Unbuffered: what a full disk did not take must not come later, out of a buffer.
        file = path.open("xb", buffering=0)
        try:
            _write_all(file, _MAGIC)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            file.close()
            path.unlink(missing_ok=True)
            raise
        return file

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}{_SUFFIX}"


def _write(file: FileIO, block: bytes) -> None:
    _write_all(file, _HEADER.pack(len(block), zlib.crc32(block)) + block)
    os.fsync(file.fileno())


def _write_all(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
