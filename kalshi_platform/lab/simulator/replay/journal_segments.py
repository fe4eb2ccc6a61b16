"""Reads the segments of a gatherer's journal: frames and marks as they were written; docs/journal.md has the format.

Shares no code with the platform's reader, so that neither hides a mistake of the other.
"""

from __future__ import annotations

import json
import logging
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
from pyarrow import fs

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lab.simulator.replay.recorded import Json

_log = logging.getLogger(__name__)

SUFFIXES = (".journal", ".journal.zst")
FORMAT_VERSION = 1
_SEGMENT = struct.Struct("<8sIII")
_SEGMENT_MAGIC = b"\xf5KPJRNL\n"
_BLOCK = struct.Struct("<4sIIIIIqqHHII")
_BLOCK_MAGIC = b"\xf5KPB"
_CHECKED_FROM = 8
_STREAM = struct.Struct("<qqB")
_COLUMNS_BYTES = 8 + 8 + 4 + 2
_HOUR_US = 3_600_000_000


class Frame(NamedTuple):
    """One frame as it was received."""

    received_at_ns: int
    session_id: int
    stream_id: int
    kind: int
    payload: bytes


class Mark(NamedTuple):
    """What the recorder noted between two frames; `name` is its type."""

    name: str
    content: Json


class JournalSegment(NamedTuple):
    """One file, and what its header says."""

    files: fs.FileSystem
    path: str
    info: Json

    def read(self) -> bytes:
        """Return its bytes as they were before compression. Raises ConfigurationError."""
        return _bytes_of(self.files, self.path)


def is_journal(path: Path) -> bool:
    """Whether a path is a segment, or a folder that has some."""
    return bool(_local_files(path))


def find_segments(path: Path, gatherer: str | None) -> list[JournalSegment]:
    """Return the segments of one gatherer in their order. Raises ConfigurationError, also where several have some."""
    return _in_order(fs.LocalFileSystem(), _local_files(path), str(path), gatherer)


def find_archived(root: str, gatherer: str, from_us: int, to_us: int) -> list[JournalSegment]:
    """Return the segments that a lake has of a gatherer's hours of a range. Raises ConfigurationError.

    Files that an hour's manifest does not name are left out: an archive run that was cut short leaves some.
    """
    try:
        files, folder = fs.FileSystem.from_uri(root) if "://" in root else (fs.LocalFileSystem(), root)
        paths = []
        for hour_us in range(from_us // _HOUR_US * _HOUR_US, to_us, _HOUR_US):
            moment = datetime.fromtimestamp(hour_us / 1_000_000, UTC)
            partition = f"{folder.rstrip('/')}/raw/frames/{moment:date=%Y-%m-%d/hour=%H}/gatherer={gatherer}"
            found = files.get_file_info(fs.FileSelector(partition, allow_not_found=True))
            named = _names_in_manifest(files, f"{partition}/_manifest.json")
            paths += [
                each.path
                for each in found
                if each.path.endswith(SUFFIXES) and (named is None or each.base_name in named)
            ]
    except (pa.ArrowInvalid, OSError) as problem:
        raise ConfigurationError([f"the lake cannot be read: {problem}"]) from None
    return _in_order(files, paths, "the lake's raw/frames in the range", gatherer)


def _names_in_manifest(files: fs.FileSystem, path: str) -> frozenset[str] | None:
    try:
        with files.open_input_stream(path) as file:
            return frozenset(each["name"] for each in json.loads(file.read())["segments"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _in_order(files: fs.FileSystem, paths: Iterable[str], where: str, gatherer: str | None) -> list[JournalSegment]:
    segments = []
    for path in paths:
        info, _ = _read_header(path, _bytes_of(files, path, _SEGMENT.size + 64 * 1024))
        if gatherer in (None, info["gatherer"]):
            segments.append(JournalSegment(files, path, info))
    names = sorted({segment.info["gatherer"] for segment in segments})
    if len(names) > 1:
        raise ConfigurationError([f"{where} holds journals of {', '.join(names)}: name one by --gatherer"])
    if not segments:
        raise ConfigurationError([f"{where} holds no journal" + ("" if gatherer is None else f" of {gatherer}")])
    # Numbers ascend within a folder; a folder that was begun anew counts from 1 again, and where the newest segments
    # were lost, others got their numbers.
    began: dict[int, int] = {}
    for segment in segments:
        journal_id, created = segment.info["journal_id"], segment.info["created_at_ns"]
        began[journal_id] = min(began.get(journal_id, created), created)
    twice = len({(each.info["journal_id"], each.info["number"]) for each in segments}) < len(segments)
    place = "created_at_ns" if twice else "number"
    return sorted(segments, key=lambda each: (began[each.info["journal_id"]], each.info[place], each.info["number"]))


def read_segment(segment: JournalSegment) -> Iterator[Frame | Mark]:
    """Yield frames and marks of a segment in their order; bytes that are no block are skipped, and said."""
    data = segment.read()
    _, at = _read_header(segment.path, data)
    while at < len(data):
        end = _block_end(data, at)
        if end is None:
            following = _next_block(data, at)
            _log.warning("journal_bytes_skipped file=%s offset=%d bytes=%d", segment.path, at, following - at)
            at = following
            continue
        yield from _read_block(data, at)
        at = end


def _next_block(data: bytes, at: int) -> int:
    """Return where the next whole block begins, else the end."""
    while (at := data.find(_BLOCK_MAGIC, at + 1)) >= 0:
        if _block_end(data, at) is not None:
            return at
    return len(data)


def _local_files(path: Path) -> list[str]:
    if path.is_file():
        return [str(path)] if path.name.endswith(SUFFIXES) else []
    found: dict[str, str] = {}
    for each in sorted(path.rglob("*")):
        if each.name.endswith(SUFFIXES) and each.is_file():
            # Of a segment that is just being compressed there are two.
            found.setdefault(str(each).removesuffix(".zst"), str(each))
    return list(found.values())


def _bytes_of(files: fs.FileSystem, path: str, most: int | None = None) -> bytes:
    try:
        with files.open_input_stream(path) as stream:  # of a name in .zst it decompresses
            content: bytes = stream.read(most)
            return content
    except OSError as problem:
        raise ConfigurationError([f"{path} cannot be read: {problem}"]) from None


def _read_header(path: str, data: bytes) -> tuple[Json, int]:
    if len(data) < _SEGMENT.size:
        raise ConfigurationError([f"{path} is no segment of a journal"])
    magic, version, size, crc = _SEGMENT.unpack_from(data)
    content = data[_SEGMENT.size : _SEGMENT.size + size]
    if magic != _SEGMENT_MAGIC or zlib.crc32(content, zlib.crc32(struct.pack("<II", version, size))) != crc:
        raise ConfigurationError([f"{path} is no segment of a journal, or its header is damaged"])
    if version != FORMAT_VERSION:
        raise ConfigurationError([f"{path} has format version {version}; version {FORMAT_VERSION} can be played"])
    info: Json = json.loads(content)
    return info, _SEGMENT.size + size


def _block_end(data: bytes, at: int) -> int | None:
    """Return where a whole block ends; None where no whole block begins."""
    if at + _BLOCK.size > len(data) or not data.startswith(_BLOCK_MAGIC, at):
        return None
    _, header_crc, body_crc, size, *_ = _BLOCK.unpack_from(data, at)
    end, body = at + size, at + _BLOCK.size
    view = memoryview(data)
    if zlib.crc32(view[at + _CHECKED_FROM : body]) != header_crc or end > len(data):
        return None
    return end if zlib.crc32(view[body:end]) == body_crc else None


def _read_block(data: bytes, at: int) -> Iterator[Frame | Mark]:
    *_, session_id, _, n_streams, _, n_frames, marks_size = _BLOCK.unpack_from(data, at)
    at += _BLOCK.size
    stream_ids = [0]
    for _ in range(n_streams):
        stream_id, _, length = _STREAM.unpack_from(data, at)
        stream_ids.append(stream_id)
        at += _STREAM.size + length
    columns = struct.unpack_from(f"<{n_frames}q{n_frames}q{n_frames}I{n_frames}H", data, at)
    at += _COLUMNS_BYTES * n_frames
    kinds = data[at : at + n_frames]
    at += n_frames
    marks: deque[tuple[int, str, Json]] = deque(
        msgspec.msgpack.decode(data[at : at + marks_size], type=list[tuple[int, str, Any]]) if marks_size else ()
    )
    at += marks_size
    for number in range(n_frames):
        while marks and marks[0][0] <= number:
            yield Mark(*marks.popleft()[1:])
        length = columns[2 * n_frames + number]
        stream_id = stream_ids[columns[3 * n_frames + number]]
        yield Frame(columns[number], session_id, stream_id, kinds[number], data[at : at + length])
        at += length
    for _, name, content in marks:
        yield Mark(name, content)
