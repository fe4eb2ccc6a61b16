"""Reads a gatherer's journal, or single segments of it, as recorded messages in the order of their receipt.

Shares no code with the platform's reader, so that neither hides a mistake of the other; the format stands in
docs/journal.md. What several connections of the gatherer received is played once: while a line hands its markets over
to another one, both receive them. A book follows one stream, the first that has it; when that ends, the next one goes
on, with what it received beyond the first.
"""

from __future__ import annotations

import json
import logging
import re
import struct
import sys
import uuid
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lab.simulator.replay.capture import ANSWERS, recorded_frame
from kalshi_platform.lab.simulator.replay.recorded import CHANNELS, MARKET_KINDS, Json, Recorded, StartState

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
_PLAYED = frozenset({0, 3})
"""Kinds of frames that are played: messages, also of unknown types. Responses to commands are the exchange's own."""
_TICKER = re.compile(rb'"market_ticker":\s*"([^"\\]+)"')
_SNAPSHOT, _DELTA = "orderbook_snapshot", "orderbook_delta"
_REMEMBERED_NS = 60 * 10**9
"""How far two connections may lie apart in what they received."""


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

    path: Path
    info: Json


def is_journal(path: Path) -> bool:
    """Whether a path is a segment, or a folder that has some."""
    return bool(_segment_files(path))


def find_segments(path: Path, gatherer: str | None) -> list[JournalSegment]:
    """Return the segments of one gatherer in their order. Raises ConfigurationError, also where several have some."""
    segments = []
    for each in _segment_files(path):
        info, _ = _read_header(each, _bytes_of(each, _SEGMENT.size + 64 * 1024))
        if gatherer in (None, info["gatherer"]):
            segments.append(JournalSegment(each, info))
    names = sorted({segment.info["gatherer"] for segment in segments})
    if len(names) > 1:
        raise ConfigurationError([f"{path} holds journals of {', '.join(names)}: name one by --gatherer"])
    if not segments:
        raise ConfigurationError([f"{path} holds no journal" + ("" if gatherer is None else f" of {gatherer}")])
    # Numbers ascend within a folder; a folder that was begun anew counts from 1 again.
    began: dict[int, int] = {}
    for segment in segments:
        journal_id, created = segment.info["journal_id"], segment.info["created_at_ns"]
        began[journal_id] = min(began.get(journal_id, created), created)
    return sorted(segments, key=lambda each: (began[each.info["journal_id"]], each.info["number"]))


def read_segment(path: Path) -> Iterator[Frame | Mark]:
    """Yield frames and marks of a segment in their order; bytes that are no block are skipped, and said."""
    data = _bytes_of(path)
    _, at = _read_header(path, data)
    while at < len(data):
        end = _block_end(data, at)
        if end is None:
            following = data.find(_BLOCK_MAGIC, at + 1)
            if following < 0:
                _log.warning("journal_bytes_skipped file=%s offset=%d bytes=%d", path, at, len(data) - at)
                return
            if _block_end(data, following) is not None:
                _log.warning("journal_bytes_skipped file=%s offset=%d bytes=%d", path, at, following - at)
            at = following
            continue
        yield from _read_block(data, at)
        at = end


def _segment_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.endswith(SUFFIXES) else []
    found: dict[Path, Path] = {}
    for each in sorted(path.rglob("*")):
        if each.name.endswith(SUFFIXES) and each.is_file():
            # Of a segment that is just being compressed there are two.
            found.setdefault(each.with_name(each.name.removesuffix(".zst")), each)
    return list(found.values())


def _bytes_of(path: Path, most: int | None = None) -> bytes:
    try:
        if not path.name.endswith(".zst"):
            with path.open("rb") as file:
                return file.read(-1 if most is None else most)
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            content: bytes = stream.read(most)
            return content
    except OSError as problem:
        raise ConfigurationError([f"{path} cannot be read: {problem}"]) from None


def _read_header(path: Path, data: bytes) -> tuple[Json, int]:
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


class Merge:
    """Makes one sequence of messages out of what several streams received. Pure."""

    def __init__(self) -> None:
        # Streams with the book of a market, the leading one first; what the others hold ready; streams of sessions.
        self._streams: dict[str, list[int]] = {}
        self._held: dict[str, deque[tuple[int, Recorded]]] = {}
        self._sessions: dict[int, set[int]] = {}
        # How often a message was played, and received by each stream, with the time of the last.
        self._played: Counter[int] = Counter()
        self._received: Counter[tuple[int, int]] = Counter()
        self._times: deque[tuple[int, int, int]] = deque()

    def add(self, frame: Frame, message: Recorded) -> Iterator[Recorded]:
        """Take a message; yield what is to be played now."""
        self._forget(frame.received_at_ns)
        stream, ticker = frame.stream_id, message.ticker
        self._sessions.setdefault(frame.session_id, set()).add(stream)
        streams = self._streams.setdefault(ticker, []) if message.kind in (_SNAPSHOT, _DELTA) else []
        if message.kind == _SNAPSHOT:
            if stream not in streams:
                streams.append(stream)
            if streams[0] == stream:
                yield message
            return
        key = _key(message)
        self._received[stream, key] += 1
        self._times.append((frame.received_at_ns, key, stream))
        occurrence = self._received[stream, key]
        if streams and stream in streams[1:]:
            self._held.setdefault(ticker, deque()).append((occurrence, message))
        elif occurrence > self._played[key]:
            self._played[key] += 1
            yield message

    def end(self, mark: Mark) -> Iterator[Recorded]:
        """Take a mark; where it ends the leading stream of a book, yield what the next one has beyond it."""
        content = mark.content
        if mark.name == "BookSubscriptionEnded":
            yield from self._end(content["ticker"], {content["stream_id"]})
        elif mark.name == "StreamEnded":
            yield from self._end_streams({content["stream_id"]})
        elif mark.name == "SessionClosed":
            yield from self._end_streams(self._sessions.pop(content["session_id"], set()))
        elif mark.name == "GathererStarted":
            yield from self.end_all()

    def end_all(self) -> Iterator[Recorded]:
        """End every stream, as the end of a process does."""
        yield from self._end_streams({stream for streams in self._streams.values() for stream in streams})
        self._sessions.clear()

    def _end_streams(self, ended: set[int]) -> Iterator[Recorded]:
        for ticker in [ticker for ticker, streams in self._streams.items() if ended & set(streams)]:
            yield from self._end(ticker, ended)

    def _end(self, ticker: str, ended: set[int]) -> Iterator[Recorded]:
        streams = self._streams.get(ticker, [])
        if not streams:
            return
        leading = streams[0]
        self._streams[ticker] = streams = [stream for stream in streams if stream not in ended]
        if streams[:1] == [leading]:
            return
        for occurrence, message in self._held.pop(ticker, ()):
            key = _key(message)
            if occurrence > self._played[key]:
                self._played[key] += 1
                yield message

    def _forget(self, now_ns: int) -> None:
        while self._times and self._times[0][0] < now_ns - _REMEMBERED_NS:
            _, key, stream = self._times.popleft()
            self._received.pop((stream, key), None)
            self._played.pop(key, None)
        for held in self._held.values():
            while held and held[0][1].received_at_ns < now_ns - _REMEMBERED_NS:
                held.popleft()


def _key(message: Recorded) -> int:
    return hash((message.kind, message.body))


class JournalSource:
    """The segments under a path. Raises ConfigurationError."""

    def __init__(self, path: Path, gatherer: str | None = None) -> None:
        self._segments = find_segments(path, gatherer)
        self.channels = frozenset(CHANNELS.values())
        self._start = self._read_start()

    def start(self) -> StartState:
        """Return every market of the journal, and as its book the first snapshot of it."""
        return self._start

    def messages(self) -> Iterator[Recorded]:
        """Yield the messages in the order of their receipt, each once."""
        merge = Merge()
        for item in self._items():
            if isinstance(item, Mark):
                yield from merge.end(item)
                continue
            message = _message(item)
            if message is not None:
                yield from merge.add(item, message)
        yield from merge.end_all()

    def describe(self) -> Json:
        """Return whose journal it is, and how many segments."""
        return {"gatherer": self._segments[0].info["gatherer"], "segments": len(self._segments)}

    def _items(self) -> Iterator[Frame | Mark]:
        for segment in self._segments:
            yield from read_segment(segment.path)

    def _read_start(self) -> StartState:
        ids: dict[str, str] = {}
        books: dict[str, Json] = {}
        channels: set[str] = set()
        first_ns = 0
        for frame in _playable(self._items()):
            first_ns = min(first_ns or frame.received_at_ns, frame.received_at_ns)
            found = _TICKER.search(frame.payload) if _DELTA.encode() in frame.payload[:64] else None
            if found is not None and found[1].decode() in books:  # nothing is new in nearly all frames
                continue
            message = _message(frame)
            if message is None:
                continue
            channels.add(message.channel)
            if message.kind in MARKET_KINDS and message.ticker and message.ticker not in ids:
                market_id = json.loads(message.body).get("market_id")
                ids[message.ticker] = str(market_id or uuid.uuid5(uuid.NAMESPACE_OID, message.ticker))
            if message.kind == _SNAPSHOT:
                books.setdefault(message.ticker, message.msg)
        if not channels:
            raise ConfigurationError([f"the journal {self._segments[0].path} holds no data frames"])
        self.channels = frozenset(channels)
        return StartState(ids, first_ns // 1_000, books, frozenset(books))


def _playable(items: Iterable[Frame | Mark]) -> Iterator[Frame]:
    return (item for item in items if isinstance(item, Frame) and item.kind in _PLAYED)


def _message(frame: Frame) -> Recorded | None:
    """Return a frame made ready; None for a response, and for bytes that are no message."""
    if frame.kind not in _PLAYED:
        return None
    try:
        content = json.loads(frame.payload)
        kind = sys.intern(str(content.get("type", "")))
    except (ValueError, AttributeError):
        return None
    return None if kind in ANSWERS else recorded_frame(kind, content.get("msg"), frame.received_at_ns)
