"""Writes and reads one file of the spool: consecutive checked blocks, readable also around damage.

File: 8 bytes of magic, then blocks. Block: 4 marking bytes, u32 index in the file (from 0), u32 length, u32 CRC-32 over
index, length and payload, then the payload (`record_codec`). Where bytes are no block, the reader returns them as a
corrupt range and continues at the next mark that begins a valid block, so damage costs only the blocks it hit.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from kalshi_platform.gatherer.journal.record_codec import decode_records
from kalshi_platform.market.records import Record

MAGIC = b"KSPOOL02"
_MARK = b"\xf5KSB"
_HEADER = struct.Struct("<4sIII")
_CHECKED = struct.Struct("<II")
_PAYLOAD_KEPT = 64 * 1024


@dataclass(frozen=True)
class CorruptRange:
    """Describes bytes of a file that cannot be read: `size` at `offset` (both 0 where the file is missing)."""

    file: str
    offset: int
    size: int
    what: str
    payload: bytes
    """The first of the bytes, for an operator."""
    written_at_ns: int
    """When the file was last written, 0 where it is missing."""
    is_torn: bool = False
    """Whether it is only an unfinished block at the end, as a killed process or a full disk leaves it."""

    @property
    def number(self) -> int:
        """Return the number of the file."""
        return int(self.file.partition(".")[0])


def block_size(payload: bytes) -> int:
    """Return the bytes of a block with this payload in a file."""
    return _HEADER.size + len(payload)


def write_block(file: FileIO, block_index: int, payload: bytes) -> None:
    """Append a block, which is on disk (fsync) when this returns. Raises OSError, maybe with a part written."""
    checked = _CHECKED.pack(block_index, len(payload))
    header = _HEADER.pack(_MARK, block_index, len(payload), zlib.crc32(payload, zlib.crc32(checked)))
    write_all(file, header + payload)
    os.fsync(file.fileno())


def write_all(file: FileIO, data: bytes) -> None:
    """Write all of `data` to an unbuffered file."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


class BlockReader:
    """Reads a file that is no longer written, block by block, from memory; making it may raise OSError."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._modified_ns = path.stat().st_mtime_ns
        self._data = path.read_bytes()
        self._block_index = 0
        self._at = 0
        if self._data.startswith(MAGIC) or MAGIC.startswith(self._data):
            # A file shorter than its magic was never written to.
            self._at = min(len(MAGIC), len(self._data))

    def next(self) -> list[Record] | CorruptRange | None:
        """Return the next block's records, the corrupt range before it, or None at the end."""
        if self._at >= len(self._data):
            return None
        payload = self._payload(self._at)
        if payload is None:
            return self._skip("bytes that are no block")
        block_index = _HEADER.unpack_from(self._data, self._at)[1]
        if block_index != self._block_index:
            missing, self._block_index = f"blocks {self._block_index} to {block_index - 1} are missing", block_index
            return self._damage(self._at, self._at, missing)
        try:
            records = decode_records(payload)
        except ValueError as error:
            return self._skip(str(error))
        self._at += block_size(payload)
        self._block_index += 1
        return records

    def _payload(self, at: int) -> bytes | None:
        """Return the payload of the block at `at`; None where there is no valid one."""
        if at + _HEADER.size > len(self._data):
            return None
        mark, block_index, length, crc = _HEADER.unpack_from(self._data, at)
        payload = self._data[at + _HEADER.size : at + _HEADER.size + length]
        if mark != _MARK or len(payload) != length:
            return None
        return payload if zlib.crc32(payload, zlib.crc32(_CHECKED.pack(block_index, length))) == crc else None

    def _skip(self, what: str) -> CorruptRange:
        """Advance to the next valid block, or to the end; return the range that was skipped."""
        start = self._at
        at = self._data.find(_MARK, start + 1)
        while at >= 0 and self._payload(at) is None:
            at = self._data.find(_MARK, at + 1)
        if at < 0:
            self._at = len(self._data)
            return self._damage(start, self._at, what, is_torn=self._is_unfinished(start))
        self._at = at
        self._block_index = _HEADER.unpack_from(self._data, at)[1]
        return self._damage(start, at, what)

    def _is_unfinished(self, at: int) -> bool:
        """Return whether the bytes at `at` are the beginning of a block whose end was never written."""
        rest = len(self._data) - at
        if rest < _HEADER.size:
            return _MARK.startswith(self._data[at : at + len(_MARK)])
        mark, block_index, length, _ = _HEADER.unpack_from(self._data, at)
        return bool(mark == _MARK and block_index == self._block_index and rest - _HEADER.size < length)

    def _damage(self, start: int, end: int, what: str, *, is_torn: bool = False) -> CorruptRange:
        payload = self._data[start : min(end, start + _PAYLOAD_KEPT)]
        return CorruptRange(self._name, start, end - start, what, payload, self._modified_ns, is_torn)
