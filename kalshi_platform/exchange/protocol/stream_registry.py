"""The open streams of one session and the records that their life causes: openings, gaps, memberships, endings. Pure.

Records go to the outbox in the order in which they must be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kalshi_platform.exchange.protocol.sequence import BOOK_CHANNEL, Stream
from kalshi_platform.exchange.protocol.session_output import Outbox
from kalshi_platform.market.records import (
    MembershipEnded,
    MembershipStarted,
    SequenceGap,
    StreamEnded,
    StreamOpened,
)

_CHANNEL_OF_TYPE = {
    "orderbook_delta": BOOK_CHANNEL,
    "orderbook_snapshot": BOOK_CHANNEL,
    "trade": "trade",
    "ticker": "ticker",
    "market_lifecycle_v2": "market_lifecycle_v2",
    "event_lifecycle": "market_lifecycle_v2",
    "event_fee_update": "market_lifecycle_v2",
    "multivariate_market_lifecycle": "multivariate_market_lifecycle",
}


class Streams:
    """Streams by sid."""

    def __init__(self, session_id: int, new_stream_id: Callable[[], int], outbox: Outbox) -> None:
        self._outbox = outbox
        self.changes = 0
        """Grows with every membership that begins or ends."""
        self.by_sid: dict[int, Stream] = {}
        self._session_id = session_id
        self._new_stream_id = new_stream_id

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self.by_sid.values()))

    def of_type(self, frame_type: str) -> Stream | None:
        """The stream on which frames of a type come, for frames that name no sid."""
        channel = _CHANNEL_OF_TYPE.get(frame_type)
        return next((stream for stream in self.by_sid.values() if stream.channel == channel), None)

    def open(self, sid: int, channel: str, at_ns: int, *, first_known: bool) -> Stream:
        """Open a stream. `first_known`: it is new on the server too, so that its first number must be 1."""
        stream = Stream(self._new_stream_id(), sid, channel, first_known=first_known)
        self.by_sid[sid] = stream
        self._outbox.records.append(StreamOpened(stream.id, self._session_id, sid, channel, at_ns))
        return stream

    def end(self, stream: Stream, at_ns: int, reason: str) -> list[str]:
        """End a stream and its memberships; return who was followed in it."""
        members = self.end_all_memberships(stream, stream.last_seq, reason)
        self._outbox.records.append(StreamEnded(stream.id, at_ns, reason))
        if self.by_sid.get(stream.sid) is stream:
            del self.by_sid[stream.sid]
        return members

    def gap(self, stream: Stream, seq: int, at_ns: int) -> list[str]:
        """Frames before `seq` did not come: end all memberships at the last good number; return who was followed."""
        self._outbox.records.append(SequenceGap(stream.id, stream.last_seq + 1, seq, at_ns))
        return self.end_all_memberships(stream, stream.last_seq, "gap")

    def follow(self, stream: Stream, ticker: str, seq: int, exchange_index: int) -> None:
        """Begin a market's membership at its snapshot."""
        stream.members[ticker] = stream.newest_start = seq
        self.changes += 1
        self._outbox.records.append(MembershipStarted(stream.id, ticker, seq, exchange_index))

    def end_memberships(self, stream: Stream, tickers: Iterable[str], seq_to: int, reason: str) -> None:
        """End the memberships of those that are followed."""
        for ticker in tickers:
            if stream.members.pop(ticker, None) is not None:
                self.changes += 1
                self._outbox.records.append(MembershipEnded(stream.id, ticker, seq_to, reason))

    def end_all_memberships(self, stream: Stream, seq_to: int, reason: str) -> list[str]:
        """End all memberships of a stream; return who was followed."""
        members = list(stream.members)
        self.end_memberships(stream, members, seq_to, reason)
        return members
