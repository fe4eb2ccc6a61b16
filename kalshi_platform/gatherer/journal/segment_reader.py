"""Reads one segment block by block, also while it is written, and finds the next whole block behind damage."""

from __future__ import annotations

from pathlib import Path

from kalshi_platform.gatherer.journal.block_format import (
    BLOCK_HEADER,
    BLOCK_MAGIC,
    SEGMENT_MAGIC,
    Block,
    BlockHeader,
    Damage,
    FormatError,
    OtherVersion,
    Position,
    SegmentInfo,
    decode_block,
    decode_header,
    decode_segment_header,
    is_whole,
    segment_header_size,
)
from kalshi_platform.gatherer.journal.segments import is_compressed, open_segment, read_some

READ_BYTES = 128 * 1024
"""Bytes of one read; half and four times as many were measured to cost a half more."""
_PAYLOAD_KEPT = 64 * 1024


class SegmentReader:
    """Reads a segment from `offset` on, which is 0 or the start of a block. Opening and reading may raise OSError."""

    def __init__(self, path: Path, number: int, offset: int = 0) -> None:
        self.number = number
        self.info: SegmentInfo | None = None
        """What the header says, once it was read: with the first block from offset 0."""
        self.is_compressed = is_compressed(path)
        """Whether the file is compressed, and so no longer written."""
        self._path = path
        self._file = open_segment(path)
        # Bytes in memory, the offset of the first, and how many of them were returned as blocks.
        self._data = b""
        self._base = 0
        self._at = 0
        # The number of the next block, None where reading began inside the segment.
        self._expected: int | None = None
        self._is_header_read = offset > 0
        self._is_ended = False
        self._undecodable: str | None = None
        self._move_to(offset)

    @property
    def position(self) -> Position:
        """Return where the next block begins."""
        return Position(self.number, self._base + self._at)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def next(self, *, finished: bool, total: int | None = None) -> Block | Damage | None:
        """Return the next block, or what stands in its place; None at the end.

        Of a segment that is not `finished` the end is where the writer may just be: what is not whole there is not
        judged. `total`: how many blocks there must be, where that is known. Raises OtherVersion, OSError.
        """
        if not self._is_header_read:
            problem = self._read_segment_header()
            self._is_header_read = problem is None
            if problem is not None:
                damage = self._skip(problem, finished=finished, total=total)
                self._is_header_read = damage is not None
                return damage
            if self.info is not None and self.info.number != self.number:
                return self._skip_all(f"the file holds segment {self.info.number}")
        header = self._whole_block()
        if header is None and not self.is_compressed:
            # The writer cuts off a part of a block that a full disk took: memory may hold that part.
            self._move_to(self.position.offset)
            header = self._whole_block()
        if header is not None:
            return self._take(header)
        # By what is in memory: a block that was appended since is none that could not be read.
        if self._at == len(self._data):
            return self._at_end(finished=finished, total=total)
        return self._skip("bytes that are no block", finished=finished, total=total)

    def _take(self, header: BlockHeader) -> Block | Damage:
        """Return the whole block that begins here, or the damage before it."""
        expected, self._expected = self._expected, header.number + 1
        if expected is not None and header.number < expected:
            self._expected = expected
            return self._damage(header.size, f"block {header.number} stands here again")
        if expected is not None and header.number > expected:
            self._expected = header.number
            return self._damage(0, _missing(expected, header.number), blocks=header.number - expected)
        try:
            block = decode_block(header, self._data, self._at, self.position)
        except FormatError as error:
            return self._damage(header.size, str(error), blocks=1)
        self._at += header.size
        return block

    def _at_end(self, *, finished: bool, total: int | None) -> Damage | None:
        """Return what is missing at the end of the segment."""
        expected = self._expected
        if self._undecodable is not None and not self._is_ended:
            what = self._undecodable
        elif finished and total is not None and expected is not None and expected < total:
            what = _missing(expected, total)
        else:
            return None
        blocks = None if total is None or expected is None else total - expected
        self._expected, self._is_ended = total, True
        return self._damage(0, what, blocks=blocks)

    def _skip(self, what: str, *, finished: bool, total: int | None) -> Damage | None:
        """Skip to the next whole block; without one to the end, where the segment is finished."""
        unfinished = self._is_unfinished() and not self.is_compressed
        if unfinished and not finished:
            return None
        expected, start = self._expected, self.position
        found, payload = self._move_to_next_whole_block()
        if found is None and not finished:
            self._move_to(start.offset)
            return None
        size = self.position.offset - start.offset
        if found is not None:
            blocks = None if expected is None else found.number - expected
            self._expected = found.number
            return Damage(start, self.position, self.number, size, what, blocks, payload=payload[:size])
        is_torn = unfinished and (total is None or expected is None or expected >= total)
        blocks = None if total is None or expected is None else max(0, total - expected)
        self._expected = total if total is not None else expected
        what = "a block that was not written to its end" if is_torn else what
        return Damage(start, self.position, self.number, size, what, blocks, is_torn, payload[:size])

    def _damage(self, size: int, what: str, *, blocks: int | None = None) -> Damage:
        """Describe `size` bytes from here on, which are in memory, and move behind them."""
        position = self.position
        payload = self._data[self._at : self._at + min(size, _PAYLOAD_KEPT)]
        self._at += size
        return Damage(position, self.position, self.number, size, what, blocks, payload=payload)

    # -- bytes

    def _read_segment_header(self) -> str | None:
        """Read the segment's header, from its first byte; return why it cannot be read, None when it was read."""
        self._expected = 0
        for _ in range(2):
            try:
                if self._fill(1):
                    self._fill(segment_header_size(self._data[:64]))
                self.info, size = decode_segment_header(self._data)
            except OtherVersion:
                raise
            except FormatError as error:
                problem = str(error)
                if self.is_compressed:
                    break
                self._move_to(0)
                continue
            self._at = size
            return None
        return problem

    def _whole_block(self) -> BlockHeader | None:
        """Return the header of the whole block that begins here; None where there is none."""
        self._fill(BLOCK_HEADER.size)
        header = decode_header(self._data, self._at)
        if header is None or not self._fill(header.size):
            return None
        return header if is_whole(header, self._data, self._at) else None

    def _move_to_next_whole_block(self) -> tuple[BlockHeader | None, bytes]:
        """Move to the next whole block after this place, else to the end; return its header, and what comes first here.

        What was searched does not stay in memory, however much it is.
        """
        self._fill(_PAYLOAD_KEPT)
        payload = self._data[self._at : self._at + _PAYLOAD_KEPT]
        expected = self._expected or 0
        self._at = min(self._at + 1, len(self._data))
        while True:
            found = self._data.find(BLOCK_MAGIC, self._at)
            if found < 0:
                self._at = max(self._at, len(self._data) - len(BLOCK_MAGIC) + 1)
                if not self._fill(len(self._data) - self._at + 1):
                    self._at = len(self._data)
                    return None, payload
                continue
            self._at = found
            self._fill(BLOCK_HEADER.size)
            header = decode_header(self._data, self._at)
            is_later = header is not None and header.number >= expected
            if header is not None and is_later and self._fill(header.size) and is_whole(header, self._data, self._at):
                return header, payload
            self._at += 1

    def _skip_all(self, what: str) -> Damage:
        """Skip the whole segment."""
        size = 0
        payload = self._data[:_PAYLOAD_KEPT]
        while self._fill(1):
            size = self._base + len(self._data)
            self._at = len(self._data)
        return Damage(Position(self.number, 0), Position(self.number, size), self.number, size, what, payload=payload)

    def _is_unfinished(self) -> bool:
        """Return whether here begins a block, or the segment's header, whose end was not written."""
        rest = len(self._data) - self._at
        if not self._is_header_read and rest < segment_header_size(self._data):
            return SEGMENT_MAGIC.startswith(self._data[: len(SEGMENT_MAGIC)])
        if rest < BLOCK_HEADER.size:
            return BLOCK_MAGIC.startswith(self._data[self._at : self._at + len(BLOCK_MAGIC)])
        header = decode_header(self._data, self._at)
        return header is not None and header.size > rest

    def _fill(self, size: int) -> bool:
        """Have `size` bytes from here on in memory; return whether there are so many."""
        missing = size - (len(self._data) - self._at)
        if missing <= 0:
            return True
        parts = [self._data[self._at :]]
        self._base, self._at = self._base + self._at, 0
        while missing > 0:
            part = self._read(max(missing, READ_BYTES))
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        self._data = b"".join(parts)
        return missing <= 0

    def _read(self, size: int) -> bytes:
        """Read the next bytes of the file; none at its end, and behind what cannot be decompressed."""
        if self._undecodable is not None:
            return b""
        try:
            return read_some(self._file, size)
        except FormatError as error:
            self._undecodable = str(error)
            return b""

    def _move_to(self, offset: int) -> None:
        """Forget what is in memory and go on at `offset`, or at the end of a shorter segment."""
        self._data, self._at = b"", 0
        if not self.is_compressed:
            self._base = min(offset, self._file.seek(0, 2))
            self._file.seek(self._base)
            return
        # What is decompressed cannot be sought in.
        self._file.close()
        self._file = open_segment(self._path)
        self._base, self._undecodable = 0, None
        while self._base < offset and (part := self._read(min(READ_BYTES, offset - self._base))):
            self._base += len(part)


def _missing(expected: int, number: int) -> str:
    one = number == expected + 1
    return f"block {expected} is missing" if one else f"blocks {expected} to {number - 1} are missing"
