"""Keeps what is open while a journal is decoded: sessions, streams with their last number, and claimed books. Pure.

Marks of the journal become entries of the ledger here, checked against the frames that came: where a block was lost,
every claim that it may concern ends at the last number before it, and the hole is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from kalshi_platform.exchange.protocol.sequence import BOOK_CHANNEL
from kalshi_platform.gatherer.ingest.price_scale import PriceScaleMonitor
from kalshi_platform.gatherer.journal.block_format import Block
from kalshi_platform.market.frames import GathererStarted, Mark
from kalshi_platform.market.identity import OccurrenceCounter
from kalshi_platform.market.records import (
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    Record,
    SequenceGap,
    SessionClosed,
    SessionOpened,
    StreamEnded,
    StreamOpened,
    UnknownFrame,
)

PROCESS = 0
"""`session_id` of blocks that belong to no session."""
_DAMAGED = "journal damaged"
_GATHERER_ENDED = "gatherer ended"


class Stream:
    """Holds the state of one stream."""

    __slots__ = (
        "books",
        "channel",
        "control_at",
        "doubtful",
        "gap_to",
        "id",
        "is_book",
        "known_to",
        "last",
        "occurrences",
        "session_id",
        "sid",
        "snapshot",
        "starts_late",
    )

    def __init__(self, stream_id: int, session_id: int, sid: int, channel: str) -> None:
        self.id = stream_id
        self.session_id = session_id
        self.sid = sid
        self.channel = channel
        self.is_book = channel == BOOK_CHANNEL
        self.last = 0
        """The last number, 0 before the first."""
        self.control_at = 0
        """The last number that a response took; data may share it."""
        self.gap_to = 0
        """The number that a recorded gap leads to."""
        self.books: dict[str, int] = {}
        """Claimed books: ticker → `seq_from`."""
        self.snapshot: tuple[str, int] | None = None
        """Ticker and number of the last snapshot that could be decoded."""
        self.doubtful = False
        """Whether a part of the journal since the last frame cannot be read."""
        self.starts_late = False
        """Whether its opening is not in the journal, so that numbers before the first one may be missing."""
        self.known_to = -1
        """Where only the ledger knows the stream: numbers up to this one may come once more."""
        self.occurrences = OccurrenceCounter()
        """Counts equal deltas."""

    @property
    def is_unseen(self) -> bool:
        """Return whether only the ledger knows the stream, which may be ahead: not even its opening may have come."""
        return self.last == self.known_to


class Session:
    """Holds the state of one session.

    `marks` is None where it is not known how many were before; `opened_at_ns` where only the ledger knows the session.
    """

    __slots__ = ("doubtful", "id", "marks", "opened_at_ns", "scale")

    def __init__(self, session_id: int, marks: int | None, opened_at_ns: int | None = None) -> None:
        self.id = session_id
        self.marks = marks
        self.opened_at_ns = opened_at_ns
        self.doubtful = False
        """Whether a part of the journal since its last block cannot be read."""
        self.scale = PriceScaleMonitor()

    def has_lost(self, marks_before: int) -> bool:
        """Return whether marks are missing before a block, or may be where it is not known how many there were."""
        return self.doubtful if self.marks is None else self.marks != marks_before


class OpenStream(msgspec.Struct, frozen=True, gc=False):
    """Describes a stream that is open in the ledger; `last` is its last committed number, 0 for none."""

    stream_id: int
    session_id: int
    sid: int
    channel: str
    last: int
    books: Mapping[str, int]


class OpenStreams:
    """Keeps sessions and streams, and appends ledger entries to `records`."""

    def __init__(self) -> None:
        self.by_id: dict[int, Stream] = {}
        self.records: list[Record] = []
        self.lost_claims: dict[str, None] = {}
        """Books whose claim ended because of a frame or block, to be subscribed again."""
        self.damaged_sessions: set[int] = set()
        """Sessions of which marks are lost: which books they follow is not known."""
        self._sessions: dict[int, Session] = {}
        self._restated = False
        self._handlers: Mapping[type, Callable[[Any], object]] = {
            SessionClosed: self._close_session,
            StreamOpened: self._open_known,
            StreamEnded: self._end_stream,
            BookSubscriptionStarted: self._start_claim,
            BookSubscriptionEnded: self._end_claim,
            SequenceGap: self._gap,
            UnknownFrame: self._add_unknown,
            GathererStarted: self._end_everything,
        }

    def session(self, session_id: int) -> Session:
        """Return a session that is open."""
        return self._sessions[session_id]

    def set_open(self, sessions: Mapping[int, int], streams: Iterable[OpenStream]) -> None:
        """Take from the ledger what is open, and of what was decoded just before only what the ledger does not have.

        `sessions`: when each was opened, in ns. The ledger may be ahead of the position from which decoding goes on, by
        a part of a batch.
        """
        for session_id, opened_at_ns in sessions.items():
            self._sessions.setdefault(session_id, Session(session_id, None, opened_at_ns))
        for stream in self.by_id.values():
            stream.books = {}
        for each in streams:
            known = self.by_id.get(each.stream_id)
            if known is None:
                known = self.by_id[each.stream_id] = Stream(each.stream_id, each.session_id, each.sid, each.channel)
                known.known_to = 0
            if known.last < each.last:
                # It was quiet just before, or the ledger is ahead.
                known.last = known.known_to = each.last
            known.books = dict(each.books)

    def doubt(self) -> None:
        """Take note that a part of the journal cannot be read."""
        for stream in self.by_id.values():
            stream.doubtful = True
        for session in self._sessions.values():
            session.doubtful = True

    # -- blocks

    def enter(self, block: Block) -> None:
        """Check that no block of the session is missing before this one, and open what is not known to be open."""
        session_id, session = block.session_id, self._sessions.get(block.session_id)
        if session is None:
            session = self._sessions[session_id] = Session(session_id, block.marks_before)
            self._add_session(block)
        elif session.has_lost(block.marks_before) and session_id != PROCESS:
            self._lose_claims(session_id)
        session.doubtful = False
        session.opened_at_ns = None
        session.marks = block.marks_before + (0 if block.restated else len(block.batch.marks))
        opened = {mark.stream_id for _, mark in block.batch.marks if type(mark) is StreamOpened}
        for stream_id, sid, channel in block.streams:
            if stream_id not in self.by_id and stream_id not in opened:
                self._open(StreamOpened(stream_id, session_id, sid, channel, block.received_at_ns)).starts_late = True

    def apply(self, mark: Mark, *, restated: bool) -> None:
        """Apply a mark at its place between the frames; of restated ones only what is not known."""
        self._restated = restated
        handler = self._handlers.get(type(mark))
        if handler is not None:
            handler(mark)

    # -- numbers

    def advance(self, stream: Stream, number: int, received_at_ns: int) -> bool:
        """Take a frame's number; return whether a response has taken it already.

        A number that does not follow ends every claim of the stream, unless a gap was recorded before it.
        """
        last = stream.last
        if number == last + 1 and not stream.doubtful:
            stream.last = number
            return False
        if number <= stream.known_to:
            return number == stream.control_at
        doubtful, stream.doubtful = stream.doubtful, False
        stream.last = number
        if number == last and stream.control_at == number:
            return True
        if number == stream.gap_to:
            return False
        if number == last + 1 and last:
            if stream.control_at == last and stream.books:
                # The data that may have shared this number would be in the part that is lost.
                self._end_books(stream, list(stream.books), last - 1, _DAMAGED, lost=True)
        elif last or ((doubtful or stream.starts_late) and number > 1):
            self._end_books(stream, list(stream.books), last, _DAMAGED, lost=True)
            self.records.append(SequenceGap(stream.id, last + 1, number, received_at_ns))
        return False

    def lose(self, stream: Stream, number: int, ticker: str | None) -> None:
        """End the claims that an unreadable frame may concern: of the market that it names, else of all.

        A frame without number that names no market ends none: the next number shows what is missing.
        """
        if ticker is None and number <= 0:
            return
        seq_to = number - 1 if number > 0 else stream.last
        named = stream.books if ticker is None else [ticker] if ticker in stream.books else []
        # A claim that starts later is one of a ledger that is ahead.
        self._end_books(
            stream, [each for each in named if stream.books[each] <= seq_to], seq_to, "dead_letter", lost=True
        )

    # -- inside

    def _add_session(self, block: Block) -> None:
        """Record a session that was not known to be open; what it follows is known where no mark of it came before."""
        if block.session_id == PROCESS:
            return
        opened = next((mark for _, mark in block.batch.marks if isinstance(mark, SessionOpened)), None)
        self.records.append(opened or SessionOpened(block.session_id, "", "", False, block.received_at_ns))
        if block.marks_before:
            self.damaged_sessions.add(block.session_id)

    def _open_known(self, mark: StreamOpened) -> None:
        known = self.by_id.get(mark.stream_id)
        if known is None:
            self._open(mark).starts_late = self._restated
        elif known.is_unseen and not self._restated:
            # The ledger is ahead: from here on its frames come once more.
            del self.by_id[known.id]
            self._open(mark)

    def _add_unknown(self, mark: UnknownFrame) -> None:
        stream = self.by_id.get(mark.stream_id)
        if stream is not None and (mark.ticker in stream.books if mark.ticker else stream.books):
            self.records.append(mark)

    def _open(self, opened: StreamOpened) -> Stream:
        for old in list(self.by_id.values()):
            is_same = old.sid == opened.sid or old.channel == opened.channel
            if is_same and old.session_id == opened.session_id and not old.is_unseen:
                self._end_stream(StreamEnded(old.id, opened.opened_at_ns, _DAMAGED))
        stream = self.by_id[opened.stream_id] = Stream(opened.stream_id, opened.session_id, opened.sid, opened.channel)
        self.records.append(opened)
        return stream

    def _start_claim(self, mark: BookSubscriptionStarted) -> None:
        stream = self.by_id.get(mark.stream_id)
        if stream is None or stream.snapshot != (mark.ticker, mark.seq_from):
            # Its snapshot could not be decoded, or is lost.
            self.lost_claims[mark.ticker] = None
            return
        stream.books[mark.ticker] = mark.seq_from
        self.records.append(mark)

    def _end_claim(self, mark: BookSubscriptionEnded) -> None:
        stream = self.by_id.get(mark.stream_id)
        if stream is None or mark.ticker not in stream.books:
            return
        if mark.seq_to > stream.last:
            self._end_books(stream, list(stream.books), stream.last, _DAMAGED, lost=True)
            return
        del stream.books[mark.ticker]
        self.records.append(mark)

    def _gap(self, mark: SequenceGap) -> None:
        stream = self.by_id.get(mark.stream_id)
        if stream is None:
            return
        if mark.seq_expected != stream.last + 1 and mark.seq_seen > stream.known_to:
            self._end_books(stream, list(stream.books), stream.last, _DAMAGED, lost=True)
            mark = SequenceGap(mark.stream_id, stream.last + 1, mark.seq_seen, mark.detected_at_ns)
        stream.gap_to = mark.seq_seen
        self.records.append(mark)

    def _end_stream(self, mark: StreamEnded) -> None:
        stream = self.by_id.pop(mark.stream_id, None)
        if stream is not None:
            self._end_books(stream, list(stream.books), stream.last, mark.reason, lost=False)
            self.records.append(mark)

    def _close_session(self, mark: SessionClosed) -> None:
        if self._sessions.pop(mark.session_id, None) is None:
            return
        for stream in [each for each in self.by_id.values() if each.session_id == mark.session_id]:
            self._end_stream(StreamEnded(stream.id, mark.closed_at_ns, mark.reason))
        self.damaged_sessions.discard(mark.session_id)
        self.records.append(mark)

    def _end_everything(self, mark: GathererStarted) -> None:
        """End what a former process left open, but nothing of this one, which a ledger that is ahead may have."""
        at_ns = mark.started_at_ns
        for session in list(self._sessions.values()):
            if session.id != PROCESS and (session.opened_at_ns is None or session.opened_at_ns < at_ns):
                self._close_session(SessionClosed(session.id, at_ns, _GATHERER_ENDED))
        for stream in [each for each in self.by_id.values() if each.session_id not in self._sessions]:
            self._end_stream(StreamEnded(stream.id, at_ns, _GATHERER_ENDED))

    def _lose_claims(self, session_id: int) -> None:
        """End every claim of a session, because marks of it are lost."""
        self.damaged_sessions.add(session_id)
        for stream in self.by_id.values():
            if stream.session_id == session_id:
                # Where the ledger may be ahead, its last number says nothing of the place of the lost marks.
                seq_to = 0 if stream.is_unseen else stream.last
                self._end_books(stream, list(stream.books), seq_to, _DAMAGED, lost=True)

    def _end_books(self, stream: Stream, tickers: list[str], seq_to: int, reason: str, *, lost: bool) -> None:
        for ticker in tickers:
            seq_from = stream.books.pop(ticker)
            # Later than `seq_to` it starts only where the ledger is ahead.
            self.records.append(BookSubscriptionEnded(stream.id, ticker, max(seq_to, seq_from), reason))
            if lost:
                self.lost_claims[ticker] = None
