"""Defines the bytes of a journal: the header of a segment, and blocks of frames and marks. Pure; docs/journal.md.

All numbers are little-endian. Two checksums guard a block: one its header, so that its size can be trusted before the
rest is there, and one everything behind the header.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import msgspec

from kalshi_platform.market import frames, records
from kalshi_platform.market.frames import FrameBatch, Mark
from kalshi_platform.market.records import NO_STREAM

FORMAT_VERSION = 1
SEGMENT_MAGIC = b"\xf5KPJRNL\n"
BLOCK_MAGIC = b"\xf5KPB"
"""0xf5 stands in no UTF-8 text, so hardly in a frame."""
RESTATED = 1
"""Flag of a block whose marks repeat what was open when its segment began; it counts for no `marks_before`."""

SEGMENT_HEADER = struct.Struct("<8sIII")
BLOCK_HEADER = struct.Struct("<4sIIIIIqqHHII")
STREAM_ENTRY = struct.Struct("<qqB")
_CHECKED_FROM = 8
_FRAME_COLUMNS_BYTES = 8 + 8 + 4 + 2 + 1
_LARGEST = 2**32 - 1
_LARGEST_INFO = 64 * 1024
_crc32 = zlib.crc32


class Position(NamedTuple):
    """Names a place in a journal: bytes from the start of a segment, before compression; places compare by order."""

    segment: int
    offset: int


class StreamRef(NamedTuple):
    """Names a stream that frames of a block belong to."""

    stream_id: int
    sid: int
    channel: str


class SegmentInfo(msgspec.Struct, frozen=True, gc=False):
    """Holds what a segment's header says.

    `journal_id` is the same in all segments of a folder. `received_from_ns`: receive time of the first block, whose UTC
    hour is the segment's. `former_blocks`: blocks of the segment before, None where another process wrote that.
    """

    journal_id: int
    gatherer: str
    number: int
    created_at_ns: int
    received_from_ns: int
    code_version: str
    former_blocks: int | None = None

    @property
    def identity(self) -> tuple[int, int, int]:
        """Names the segment: journal, number, and when it was created; numbers of lost segments come again."""
        return self.journal_id, self.number, self.created_at_ns


class BlockHeader(NamedTuple):
    """Holds the header of a block, in the order of its bytes; `size` counts all bytes of the block."""

    magic: bytes
    header_crc: int
    body_crc: int
    size: int
    number: int
    marks_before: int
    session_id: int
    received_at_ns: int
    streams: int
    flags: int
    frames: int
    marks_size: int


class Block(msgspec.Struct, frozen=True, gc=False):
    """Holds one append: frames and marks of one session (0: REST and marks of the process), and where it stands.

    `end` is where the next block begins. `marks_before`: marks of this session before this block; a larger number than
    was seen says that a block is missing. `received_at_ns`: of the first frame; without frames, when it was appended.
    `streams`: those of the frames.
    """

    position: Position
    end: Position
    number: int
    session_id: int
    marks_before: int
    received_at_ns: int
    restated: bool
    streams: tuple[StreamRef, ...]
    batch: FrameBatch


class Damage(msgspec.Struct, frozen=True, gc=False):
    """Describes a part of a journal that gives no block: `size` bytes that cannot be read, or what is missing.

    Reading goes on at `end`. `blocks`: blocks that are missing, None where that is not known. `is_torn`: it is only the
    unfinished block at the end of a segment, as a killed process or a full disk leaves it. `payload`: its first bytes.
    """

    position: Position
    end: Position
    segment: int
    size: int
    what: str
    blocks: int | None = None
    is_torn: bool = False
    payload: bytes = b""


class FormatError(Exception):
    """Reports bytes that are not what the format says."""


class OtherVersion(FormatError):
    """Reports a segment of a format version that this program does not read."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the segment has format version {version}; this program reads {FORMAT_VERSION}")
        self.version = version


_MARKS: tuple[type[Any], ...] = (
    records.SessionOpened,
    records.SessionClosed,
    records.StreamOpened,
    records.StreamEnded,
    records.BookSubscriptionStarted,
    records.BookSubscriptionEnded,
    records.SequenceGap,
    records.UnknownFrame,
    frames.RestBooksReceived,
    frames.GathererStarted,
)
_encode = msgspec.msgpack.Encoder().encode
_marks_decoder = msgspec.msgpack.Decoder(list[tuple[int, str, msgspec.Raw]])
_mark_decoders: Mapping[str, Callable[[msgspec.Raw], Mark]] = {
    kind.__name__: msgspec.msgpack.Decoder(kind).decode for kind in _MARKS
}
_info_decoder = msgspec.json.Decoder(SegmentInfo)


def encode_segment_header(info: SegmentInfo, version: int = FORMAT_VERSION) -> bytes:
    """Return the first bytes of a segment."""
    content = msgspec.json.encode(info)
    crc = _crc32(content, _crc32(struct.pack("<II", version, len(content))))
    return SEGMENT_HEADER.pack(SEGMENT_MAGIC, version, len(content), crc) + content


def segment_header_size(data: bytes) -> int:
    """Return the size of a segment's header by its first bytes, as far as they can be trusted."""
    if len(data) < SEGMENT_HEADER.size:
        return SEGMENT_HEADER.size
    size: int = SEGMENT_HEADER.unpack_from(data)[2]
    return SEGMENT_HEADER.size + min(size, _LARGEST_INFO)


def decode_segment_header(data: bytes) -> tuple[SegmentInfo, int]:
    """Return what a segment's header says, and its size in bytes. Raises FormatError.

    Magic, version, size and checksum keep their places in every version, so that OtherVersion is certain.
    """
    if len(data) < SEGMENT_HEADER.size:
        raise FormatError("the header of the segment is cut")
    magic, version, size, crc = SEGMENT_HEADER.unpack_from(data)
    end = SEGMENT_HEADER.size + size
    content = data[SEGMENT_HEADER.size : end]
    if magic != SEGMENT_MAGIC or len(content) != size:
        raise FormatError("the header of the segment is damaged")
    if _crc32(content, _crc32(struct.pack("<II", version, size))) != crc:
        raise FormatError("the header of the segment is damaged")
    if version != FORMAT_VERSION:
        raise OtherVersion(version)
    try:
        return _info_decoder.decode(content), end
    except msgspec.MsgspecError as error:
        raise FormatError(f"the header of the segment cannot be read: {error}") from error


class BlockBody(NamedTuple):
    """Holds the encoded parts of a block behind its header, and what the header says about them."""

    parts: tuple[bytes, bytes]
    size: int
    crc: int
    streams: int
    frames: int
    marks_size: int


def encode_body(batch: FrameBatch, streams: Mapping[int, StreamRef]) -> BlockBody:
    """Encode everything of a block but its header; `streams` has the streams of the frames by id.

    Raises ValueError where a number does not fit or the block would have 4 GiB.
    """
    count = len(batch.payloads)
    ids = sorted(set(batch.stream_ids) - {NO_STREAM})
    try:
        parts = [_stream_entry(streams[each]) for each in ids]
        parts += (
            _repeated(batch.received_at_ns) or struct.pack(f"<{count}q", *batch.received_at_ns),
            struct.pack(f"<{count}q", *batch.numbers),
            struct.pack(f"<{count}I", *map(len, batch.payloads)),
            _stream_indexes(batch.stream_ids, ids),
            bytes(batch.kinds),
        )
        marks = _encode([(at, type(mark).__name__, mark) for at, mark in batch.marks]) if batch.marks else b""
    except (struct.error, KeyError, OverflowError, ValueError) as error:
        raise ValueError(f"a batch that no block can hold: {type(error).__name__}: {error}") from error
    parts.append(marks)
    head = b"".join(parts)
    payload = b"".join(batch.payloads)
    size = BLOCK_HEADER.size + len(head) + len(payload)
    if size > _LARGEST:
        raise ValueError(f"a block of {size} bytes, allowed are {_LARGEST}")
    return BlockBody((head, payload), size, _crc32(payload, _crc32(head)), len(ids), count, len(marks))


def encode_header(
    body: BlockBody, *, number: int, session_id: int, marks_before: int, received_at_ns: int, flags: int = 0
) -> bytes:
    """Return the header of the block with this body."""
    checked = struct.pack(
        "<IIIIqqHHII",
        body.crc,
        body.size,
        number,
        marks_before,
        session_id,
        received_at_ns,
        body.streams,
        flags,
        body.frames,
        body.marks_size,
    )
    return BLOCK_MAGIC + struct.pack("<I", _crc32(checked)) + checked


def decode_header(data: bytes, at: int = 0) -> BlockHeader | None:
    """Return the header of the block at `at`; None where there is no whole one."""
    end = at + BLOCK_HEADER.size
    if end > len(data) or not data.startswith(BLOCK_MAGIC, at):
        return None
    header = BlockHeader._make(BLOCK_HEADER.unpack_from(data, at))
    return header if _crc32(memoryview(data)[at + _CHECKED_FROM : end]) == header.header_crc else None


def is_whole(header: BlockHeader, data: bytes, at: int) -> bool:
    """Return whether everything behind the header is there, as it was written."""
    end = at + header.size
    return end <= len(data) and _crc32(memoryview(data)[at + BLOCK_HEADER.size : end]) == header.body_crc


def decode_block(header: BlockHeader, data: bytes, at: int, position: Position) -> Block:
    """Decode the whole block at `at`, which stands at `position` of its journal. Raises FormatError."""
    try:
        return _decode_block(header, data, at, position)
    except (struct.error, IndexError, KeyError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise FormatError(f"a block that cannot be decoded: {type(error).__name__}: {error}") from error


def _decode_block(header: BlockHeader, data: bytes, at: int, position: Position) -> Block:
    end, count = at + header.size, header.frames
    start = at + BLOCK_HEADER.size
    streams: list[StreamRef] = []
    for _ in range(header.streams):
        stream_id, sid, length = STREAM_ENTRY.unpack_from(data, start)
        start += STREAM_ENTRY.size
        streams.append(StreamRef(stream_id, sid, bytes(data[start : start + length]).decode()))
        start += length
    ids = [NO_STREAM, *(stream.stream_id for stream in streams)]
    lengths = struct.unpack_from(f"<{count}I", data, start + 16 * count)
    indexes = struct.unpack_from(f"<{count}H", data, start + 20 * count)
    kinds_at = start + (_FRAME_COLUMNS_BYTES - 1) * count
    marks_at = kinds_at + count
    payload_at = marks_at + header.marks_size
    batch = FrameBatch(
        _slices(data, payload_at, lengths, end),
        list(struct.unpack_from(f"<{count}q", data, start)),
        [ids[1]] * count if len(ids) == 2 and indexes.count(1) == count else [ids[index] for index in indexes],
        list(struct.unpack_from(f"<{count}q", data, start + 8 * count)),
        list(data[kinds_at:marks_at]),
        _decode_marks(bytes(data[marks_at:payload_at])) if header.marks_size else [],
    )
    return Block(
        position,
        Position(position.segment, position.offset + header.size),
        header.number,
        header.session_id,
        header.marks_before,
        header.received_at_ns,
        bool(header.flags & RESTATED),
        tuple(streams),
        batch,
    )


def _slices(data: bytes, at: int, lengths: Sequence[int], end: int) -> list[bytes]:
    """Cut the payload into frames, which must fill it."""
    if at + sum(lengths) != end:
        raise FormatError("a block whose frames do not fill it")
    ends = list(accumulate(lengths, initial=at))
    return [data[low:high] for low, high in pairwise(ends)]


def _decode_marks(data: bytes) -> list[tuple[int, Mark]]:
    return [(at, _mark_decoders[kind](raw)) for at, kind, raw in _marks_decoder.decode(data)]


def _repeated(times_ns: Sequence[int]) -> bytes | None:
    """Return the column where all times are equal, as those of one socket read are; else None."""
    count = len(times_ns)
    return struct.pack("<q", times_ns[0]) * count if count and times_ns.count(times_ns[0]) == count else None


def _stream_indexes(stream_ids: Sequence[int], ids: Sequence[int]) -> bytes:
    """Return the column of streams by their place in the table."""
    count = len(stream_ids)
    if len(ids) == 1 and stream_ids.count(ids[0]) == count:
        return b"\1\0" * count
    index = {NO_STREAM: 0} | {stream_id: at for at, stream_id in enumerate(ids, 1)}
    return struct.pack(f"<{count}H", *map(index.__getitem__, stream_ids))


def _stream_entry(stream: StreamRef) -> bytes:
    channel = stream.channel.encode()
    return STREAM_ENTRY.pack(stream.stream_id, stream.sid, len(channel)) + channel
