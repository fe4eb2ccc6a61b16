"""Keeps the open streams of one session and records their ledger entries. Pure.

Entries are marks in the batch of the output, each at its place between the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kalshi_platform.exchange.protocol.sequence import BOOK_CHANNEL, Stream
from kalshi_platform.exchange.protocol.session_model import SessionOutput
from kalshi_platform.market.records import (
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    SequenceGap,
    StreamEnded,
    StreamOpened,
)

CHANNEL_OF_TYPE = {
    "orderbook_delta": BOOK_CHANNEL,
    "orderbook_snapshot": BOOK_CHANNEL,
    "trade": "trade",
    "ticker": "ticker",
    "market_lifecycle_v2": "market_lifecycle_v2",
    "market_lifecycle": "market_lifecycle_v2",
    "event_lifecycle": "market_lifecycle_v2",
    "event_fee_update": "market_lifecycle_v2",
    "multivariate_market_lifecycle": "multivariate_market_lifecycle",
}


class StreamRegistry:
    """Keeps streams by sid."""

    def __init__(self, session_id: int, new_stream_id: Callable[[], int], output: SessionOutput) -> None:
        self._output = output
        self.changes = 0
        """Count of book subscriptions started or ended."""
        self.by_sid: dict[int, Stream] = {}
        self._ended_sids: set[int] = set()
        self._session_id = session_id
        self._new_stream_id = new_stream_id

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self.by_sid.values()))

    def of_channel(self, channel: str | None) -> Stream | None:
        """Return the open stream of a channel, or None."""
        return next((stream for stream in self.by_sid.values() if stream.channel == channel), None)

    def open_by_data(self, sid: int, channel: str | None, at_ns: int) -> Stream | None:
        """Open the stream of data that came ahead of its acknowledgement; return None where it cannot be one.

        A stream of that channel is open, or the sid has ended on this connection: the data belongs to neither.
        """
        if channel is None or sid in self._ended_sids or self.of_channel(channel) is not None:
            return None
        return self.open(sid, channel, at_ns, first_known=False)

    def open(self, sid: int, channel: str, at_ns: int, *, first_known: bool) -> Stream:
        """Open a stream; with `first_known` it is new on the server too, so that its first number must be 1."""
        stream = Stream(self._new_stream_id(), sid, channel, first_known=first_known)
        self.by_sid[sid] = stream
        self._output.batch.mark(StreamOpened(stream.id, self._session_id, sid, channel, at_ns))
        return stream

    def end(self, stream: Stream, at_ns: int, reason: str) -> list[str]:
        """End a stream and its book subscriptions; return their tickers."""
        followed = self.end_all_book_subscriptions(stream, stream.last_seq, reason)
        self._output.batch.mark(StreamEnded(stream.id, at_ns, reason))
        if self.by_sid.get(stream.sid) is stream:
            del self.by_sid[stream.sid]
        self._ended_sids.add(stream.sid)
        return followed

    def gap(self, stream: Stream, seq: int, at_ns: int) -> list[str]:
        """Record a gap before `seq`, end all book subscriptions at the last good number, and return their tickers."""
        self._output.batch.mark(SequenceGap(stream.id, stream.last_seq + 1, seq, at_ns))
        return self.end_all_book_subscriptions(stream, stream.last_seq, "gap")

    def start_book_subscription(self, stream: Stream, ticker: str, seq: int, exchange_index: int) -> None:
        """Start a market's book subscription at its snapshot."""
        stream.followed[ticker] = stream.newest_start = seq
        self.changes += 1
        self._output.batch.mark(BookSubscriptionStarted(stream.id, ticker, seq, exchange_index))

    def end_book_subscriptions(self, stream: Stream, tickers: Iterable[str], seq_to: int, reason: str) -> None:
        """End the open book subscriptions of these tickers."""
        for ticker in tickers:
            if stream.followed.pop(ticker, None) is not None:
                self.changes += 1
                self._output.batch.mark(BookSubscriptionEnded(stream.id, ticker, seq_to, reason))

    def end_all_book_subscriptions(self, stream: Stream, seq_to: int, reason: str) -> list[str]:
        """End all book subscriptions of a stream; return their tickers."""
        followed = list(stream.followed)
        self.end_book_subscriptions(stream, followed, seq_to, reason)
        return followed
