"""Counts what a journal holds, from the items of a reader. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kalshi_platform.gatherer.journal.block_format import Block, Damage
from kalshi_platform.market.records import NO_STREAM, SessionClosed, SessionOpened, StreamEnded, StreamOpened


class SegmentSummary(msgspec.Struct):
    """Counts the blocks of one segment; `frame_bytes` are those of the frames alone, times are receive times."""

    number: int
    blocks: int = 0
    frames: int = 0
    frame_bytes: int = 0
    marks: int = 0
    first_received_at_ns: int | None = None
    last_received_at_ns: int | None = None
    damages: int = 0


class SessionSummary(msgspec.Struct):
    """Counts the frames of one session; 0 is REST and the process itself. `closed` says why it ended, if it did."""

    session_id: int
    connection: str = ""
    opened_at_ns: int | None = None
    closed: str | None = None
    frames: int = 0


class StreamSummary(msgspec.Struct):
    """Counts the frames of one stream, and its numbers: the exchange's, or negative ones where it sends none."""

    stream_id: int
    session_id: int
    sid: int
    channel: str
    frames: int = 0
    first_number: int | None = None
    last_number: int | None = None
    ended: str | None = None


class JournalSummary(msgspec.Struct):
    """Holds what was counted. `notes`: what is no damage, but worth a line."""

    segments: list[SegmentSummary] = msgspec.field(default_factory=list)
    sessions: list[SessionSummary] = msgspec.field(default_factory=list)
    streams: list[StreamSummary] = msgspec.field(default_factory=list)
    damages: list[Damage] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    @property
    def blocks(self) -> int:
        """Return the number of blocks."""
        return sum(segment.blocks for segment in self.segments)

    @property
    def frames(self) -> int:
        """Return the number of frames."""
        return sum(segment.frames for segment in self.segments)


def summarize(items: Iterable[Block | Damage]) -> JournalSummary:
    """Count the items of a journal, in the order of a reader."""
    counting = _Counting()
    for item in items:
        if isinstance(item, Block):
            counting.add_block(item)
        else:
            counting.add_damage(item)
    summary = counting.summary
    summary.segments = [counting.segments[number] for number in sorted(counting.segments)]
    summary.sessions = list(counting.sessions.values())
    summary.streams = list(counting.streams.values())
    return summary


class _Counting:
    def __init__(self) -> None:
        self.summary = JournalSummary()
        self.segments: dict[int, SegmentSummary] = {}
        self.sessions: dict[int, SessionSummary] = {}
        self.streams: dict[int, StreamSummary] = {}
        # Marks of each session so far.
        self._marks: dict[int, int] = {}

    def add_block(self, block: Block) -> None:
        segment = self._segment(block.position.segment)
        frames, marks = len(block.batch.payloads), len(block.batch.marks)
        segment.blocks += 1
        segment.frames += frames
        segment.marks += marks
        segment.frame_bytes += sum(map(len, block.batch.payloads))
        if block.batch.received_at_ns:
            if segment.first_received_at_ns is None:
                segment.first_received_at_ns = block.batch.received_at_ns[0]
            segment.last_received_at_ns = block.batch.received_at_ns[-1]
        session = self.sessions.setdefault(block.session_id, SessionSummary(block.session_id))
        session.frames += frames
        self._count_marks(block, marks)
        for stream in block.streams:
            self.streams.setdefault(
                stream.stream_id, StreamSummary(stream.stream_id, block.session_id, stream.sid, stream.channel)
            )
        for stream_id, number in zip(block.batch.stream_ids, block.batch.numbers, strict=True):
            if stream_id != NO_STREAM:
                self._count_frame(self.streams[stream_id], number)
        for _, mark in block.batch.marks:
            self._apply(mark)

    def add_damage(self, damage: Damage) -> None:
        if damage.is_torn:
            self.summary.notes.append(
                f"{name_place(damage)}: the last {damage.size:,} bytes are of a block that was not written to its end:"
                " the process was killed, or the disk was full"
            )
            return
        self._segment(damage.segment).damages += 1
        self.summary.damages.append(damage)

    def _segment(self, number: int) -> SegmentSummary:
        return self.segments.setdefault(number, SegmentSummary(number))

    def _count_marks(self, block: Block, marks: int) -> None:
        session_id, before = block.session_id, block.marks_before
        expected = self._marks.get(session_id, before)
        if before > expected:
            self.summary.notes.append(
                f"segment {block.position.segment}, offset {block.position.offset:,}: frames of session {session_id}"
                " before this were not recorded: their block is damaged, or the journal took none"
            )
        self._marks[session_id] = before + (0 if block.restated else marks)

    def _count_frame(self, stream: StreamSummary, number: int) -> None:
        stream.frames += 1
        if number:
            stream.last_number = number
            if stream.first_number is None:
                stream.first_number = number

    def _apply(self, mark: object) -> None:
        if isinstance(mark, SessionOpened):
            session = self.sessions.setdefault(mark.session_id, SessionSummary(mark.session_id))
            session.connection, session.opened_at_ns = mark.connection, mark.opened_at_ns
        elif isinstance(mark, SessionClosed):
            self.sessions.setdefault(mark.session_id, SessionSummary(mark.session_id)).closed = mark.reason
        elif isinstance(mark, StreamOpened):
            self.streams.setdefault(
                mark.stream_id, StreamSummary(mark.stream_id, mark.session_id, mark.sid, mark.channel)
            )
        elif isinstance(mark, StreamEnded) and mark.stream_id in self.streams:
            self.streams[mark.stream_id].ended = mark.reason


def name_place(damage: Damage) -> str:
    """Return where a damage is, for people."""
    return f"segment {damage.segment}, offset {damage.position.offset:,}"


def describe_damage(damage: Damage) -> str:
    """Return one line about a damage, for people."""
    lost = "" if damage.blocks is None else f"; {damage.blocks} block{'' if damage.blocks == 1 else 's'} lost"
    size = f", {damage.size:,} bytes" if damage.size else ""
    return f"{name_place(damage)}{size}: {damage.what}{lost}"
