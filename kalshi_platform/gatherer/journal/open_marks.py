"""Keeps what is open in a journal as it was written, and how many marks each session has. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kalshi_platform.gatherer.journal.block_format import StreamRef
from kalshi_platform.market.frames import FrameBatch
from kalshi_platform.market.records import SessionClosed, SessionOpened, StreamEnded, StreamOpened


class OpenMarks:
    """Follows the batches of a journal, so that a new segment can restate what is open."""

    def __init__(self) -> None:
        self.streams: dict[int, StreamRef] = {}
        """Streams by id, as blocks name them; also those whose opening is about to be written."""
        self._sessions: dict[int, SessionOpened] = {}
        self._opened: dict[int, StreamOpened] = {}
        self._marks: dict[int, int] = {}

    def announce(self, batch: FrameBatch) -> None:
        """Make the streams known that a batch opens, before it is written."""
        for _, mark in batch.marks:
            if type(mark) is StreamOpened:
                self.streams[mark.stream_id] = StreamRef(mark.stream_id, mark.sid, mark.channel)

    def marks_before(self, session_id: int) -> int:
        """Return how many marks of the session were written, or refused."""
        return self._marks.get(session_id, 0)

    def count_refused(self, session_id: int, batch: FrameBatch) -> None:
        """Count a batch that was not written as one mark more than it has, so that it is missed."""
        self._marks[session_id] = self.marks_before(session_id) + len(batch.marks) + 1

    def apply(self, session_id: int, batch: FrameBatch) -> None:
        """Follow a batch that was written."""
        if not batch.marks:
            return
        self._marks[session_id] = self.marks_before(session_id) + len(batch.marks)
        for _, mark in batch.marks:
            if type(mark) is SessionOpened:
                self._sessions[mark.session_id] = mark
            elif type(mark) is StreamOpened:
                self._opened[mark.stream_id] = mark
            elif type(mark) is StreamEnded:
                self._end_stream(mark.stream_id)
            elif type(mark) is SessionClosed:
                self._sessions.pop(mark.session_id, None)
                self._marks.pop(mark.session_id, None)
                for stream in self._streams_of(mark.session_id):
                    self._end_stream(stream.stream_id)

    def restated(self) -> Iterator[tuple[int, FrameBatch]]:
        """Yield each open session with the marks that opened it and its streams."""
        for session_id, opened in self._sessions.items():
            batch = FrameBatch()
            batch.mark(opened)
            for stream in self._streams_of(session_id):
                batch.mark(stream)
            yield session_id, batch

    def _streams_of(self, session_id: int) -> list[StreamOpened]:
        return [stream for stream in self._opened.values() if stream.session_id == session_id]

    def _end_stream(self, stream_id: int) -> None:
        self._opened.pop(stream_id, None)
        self.streams.pop(stream_id, None)
