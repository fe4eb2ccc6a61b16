"""Runs one WebSocket connection as a pure state machine: frames in; frames with marks, commands and alarms out.

No I/O and no clock: the caller passes every frame with its receive time, sends the commands in their order, and calls
`tick` about twice a second. Not thread-safe: one caller at a time. Of a frame only the head is read (and all of a
response to a command): what its content says is the decoder's business (`gatherer.ingest.decoder`). Every frame is in
the batch once, in the order of receipt, with its stream, number and kind; entries of the ledger are marks between them.
Marks that a subscribe or unsubscribe call causes come first in the next `receive`, `tick`, `pop_batch` or `close`.

The rules behind the coverage claims:
- Numbers (`seq`) are checked per sid over every frame that carries one, command responses included.
- A book subscription (one market in one stream) starts at the market's snapshot. A gap ends all book subscriptions of
  its sid at the last good number; frames are still recorded, and each starts again with the market's next snapshot.
- A second snapshot of a subscribed market ends its book subscription at the snapshot's number and starts another.
- A frame of an unknown *type* ends none: it is recorded before its number, and a snapshot of each market that it may
  concern is requested, which shows whether the book has changed. Readers of the ledger claim accordingly.
- A delete ends the book subscription at the last number received before the command was made.
- A frame whose content cannot be parsed ends the book subscriptions that it may concern in the decoder, which has
  `books_lost` called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.heads import Head, decode_head, read_head, read_ticker
from kalshi_platform.exchange.parse.messages import Frame, SubscribedBody, parse_frame, parse_partial
from kalshi_platform.exchange.protocol.command_responses import ResponseHandler
from kalshi_platform.exchange.protocol.sequence import SequenceStatus, Stream
from kalshi_platform.exchange.protocol.session_model import Alarm, SessionConfig, SessionCounters, SessionOutput
from kalshi_platform.exchange.protocol.stream_registry import CHANNEL_OF_TYPE, StreamRegistry
from kalshi_platform.exchange.protocol.subscriptions import Subscriptions
from kalshi_platform.market.frames import FrameBatch, FrameKind
from kalshi_platform.market.names import readable
from kalshi_platform.market.records import NO_STREAM, UnknownFrame

__all__ = ["Alarm", "Session", "SessionConfig", "SessionCounters", "SessionOutput"]

CONTROL_TYPES = frozenset({"subscribed", "ok", "unsubscribed", "error"})
# A flood of ever new types must not be remembered one by one.
_MOST_UNKNOWN = 1_000
_ANY_TYPE = "(one of many)"
_BOOK_TYPES = frozenset({"orderbook_delta", "orderbook_snapshot"})
_DELTA = "orderbook_delta"
_NO_NUMBER = 0
# Plain integers: a batch stores bytes, and an enum's members cost more to append.
_DATA = int(FrameKind.DATA)
_CONTROL = int(FrameKind.CONTROL)
_REPEATED = int(FrameKind.REPEATED)
_UNKNOWN_TYPE = int(FrameKind.UNKNOWN_TYPE)
_WRONG_CHANNEL = int(FrameKind.WRONG_CHANNEL)
_UNKNOWN_SID = int(FrameKind.UNKNOWN_SID)
_NO_SID = int(FrameKind.NO_SID)
_UNREADABLE = int(FrameKind.UNREADABLE)


class Session:
    """Holds the state of one connection."""

    def __init__(self, session_id: int, new_stream_id: Callable[[], int], config: SessionConfig | None = None) -> None:
        """Start a session; `new_stream_id` returns a number that no other stream of this gatherer has or had."""
        self.session_id = session_id
        self.counters = SessionCounters()
        self._subscriptions = Subscriptions(config or SessionConfig())
        self._output = SessionOutput()
        self._streams = StreamRegistry(session_id, new_stream_id, self._output)
        self._responses = ResponseHandler(self._streams, self._subscriptions, self._output)
        self._reported_changes = 0
        self._now_ns = 0

    # -- requests of the caller

    def subscribe_books(self, markets: Mapping[str, int]) -> None:
        """Subscribe the books of `markets` (ticker → exchange_index); `pop_commands` returns the commands."""
        self._subscriptions.subscribe(markets, self._now_ns)

    def unsubscribe_books(self, tickers: Iterable[str]) -> None:
        """Unsubscribe books; their book subscriptions end at the last number received so far."""
        tickers = list(tickers)
        for stream in self._streams:
            if stream.is_book:
                self._streams.end_book_subscriptions(stream, tickers, stream.last_seq, "unsubscribed")
        self._subscriptions.unsubscribe(tickers, self._now_ns)

    def subscribe_channels(self, channels: Iterable[str]) -> None:
        """Open channels for all markets, e.g. `trade`, `ticker`, `market_lifecycle_v2`."""
        self._subscriptions.subscribe_channels(channels, self._now_ns)

    def list_subscriptions(self) -> None:
        """Request the subscriptions that the exchange serves: what it no longer serves is opened again.

        The response is also a sign of life of a silent connection.
        """
        self._responses.list_subscriptions(self._now_ns)

    def pop_commands(self) -> list[bytes]:
        """Return the commands caused by the calls above, to be sent in this order."""
        return self._subscriptions.pop_commands()

    def books_lost(self, tickers: Iterable[str]) -> None:
        """Request new snapshots of books whose claim the decoder ended, because of a frame that it could not read."""
        tickers = list(tickers)
        for stream in self._streams:
            self._streams.end_book_subscriptions(stream, tickers, stream.last_seq, "dead_letter")
        self._subscriptions.mark_lost(tickers, self._now_ns, request_now=True)

    def pop_batch(self) -> FrameBatch:
        """Return the marks caused by the calls above, without waiting for the next frame."""
        return self._output.batch.pop()

    # -- frames and time

    def receive(self, payload: bytes, received_at_ns: int) -> SessionOutput:
        """Process one frame, for a caller with one clock only."""
        return self.receive_all([(payload, received_at_ns)], received_at_ns)

    def receive_all(self, frames: Iterable[tuple[bytes, int]], now_ns: int) -> SessionOutput:
        """Process the frames of one socket read, each with its receive time, which is only recorded.

        `now_ns` is a time of the clock of `tick`, by which deadlines are counted: a monotonic one, because a wall clock
        is set now and then.
        """
        self._now_ns = now_ns
        output = self._output
        batch, by_sid = output.batch, self._streams.by_sid
        add_payload, add_time, add_kind = batch.payloads.append, batch.received_at_ns.append, batch.kinds.append
        add_stream, add_number = batch.stream_ids.append, batch.numbers.append
        count = 0
        for payload, received_at_ns in frames:
            count += 1
            try:
                head = decode_head(payload)
            except (msgspec.MsgspecError, RecursionError, UnicodeError):
                self._process_broken(payload, received_at_ns)
                continue
            # The next delta of a book stream, as nearly every frame is; the general path would do the same.
            if head.type == _DELTA:
                stream = by_sid.get(head.sid)  # type: ignore[arg-type]
                if stream is not None and head.seq == stream.last_seq + 1 and stream.is_book:
                    stream.last_seq += 1
                    stream.last_payload = payload
                    stream.last_control = False
                    add_payload(payload)
                    add_time(received_at_ns)
                    add_stream(stream.id)
                    add_number(stream.last_seq)
                    add_kind(_DATA)
                    continue
            self._process(head, payload, received_at_ns)
        self.counters.frames += count
        return self._flush()

    def tick(self, now_ns: int) -> SessionOutput:
        """Check the deadlines of unanswered commands and missing snapshots."""
        self._now_ns = now_ns
        self._output.alarms += self._subscriptions.tick(now_ns)
        return self._flush()

    def close(self, now_ns: int, reason: str) -> FrameBatch:
        """End every book subscription and stream, because the connection ended; return the last marks."""
        for stream in self._streams:
            self._streams.end(stream, now_ns, reason)
        return self.pop_batch()

    # -- state

    def out_of_sync(self) -> set[str]:
        """Return the markets that lost a frame and have no new snapshot yet."""
        return {ticker for ticker, each in self._subscriptions.pending.by_ticker.items() if each.after_loss}

    def waiting(self) -> set[str]:
        """Return the wanted markets without a valid snapshot, for any reason."""
        return set(self._subscriptions.pending.by_ticker)

    def unresponsive(self) -> set[str]:
        """Return the markets that sent no snapshot to repeated requests and were not refused, as settled ones do."""
        pending = self._subscriptions.pending
        return pending.unanswered - pending.refused

    def wanted(self) -> set[str]:
        """Return the markets whose books are subscribed or about to be."""
        return set(self._subscriptions.wanted)

    def followed(self) -> set[str]:
        """Return the markets with an open book subscription."""
        return {ticker for stream in self._streams for ticker in stream.followed}

    def resubscribed_rarely(self) -> int:
        """Return how many markets lose their claim again and again, and are requested ever more rarely."""
        return self._subscriptions.resubscribed_rarely(self._now_ns)

    def book_subscriptions_changed(self) -> bool:
        """Return whether `followed` may differ from its value at the last call of this method."""
        changes, self._reported_changes = self._reported_changes, self._streams.changes
        return changes != self._reported_changes

    def open_channels(self) -> set[str]:
        """Return the channels with an open stream."""
        return {stream.channel for stream in self._streams}

    def last_seqs(self) -> dict[int, int]:
        """Return the last number of every open stream, by stream_id."""
        return {stream.id: stream.last_seq for stream in self._streams}

    # -- frames

    def _flush(self) -> SessionOutput:
        output = self._output.pop()
        output.commands = self._subscriptions.pop_commands()
        return output

    def _add(self, payload: bytes, received_at_ns: int, stream: Stream | None, number: int, kind: int) -> None:
        batch = self._output.batch
        batch.payloads.append(payload)
        batch.received_at_ns.append(received_at_ns)
        batch.stream_ids.append(NO_STREAM if stream is None else stream.id)
        batch.numbers.append(number)
        batch.kinds.append(kind)

    def _process(self, head: Head, payload: bytes, received_at_ns: int) -> None:
        kind, sid, seq = head.type, head.sid, head.seq
        if kind in CONTROL_TYPES:
            self._process_response(head, payload, received_at_ns)
            return
        channel = CHANNEL_OF_TYPE.get(kind)
        stream = self._streams.by_sid.get(sid) if sid is not None else self._streams.of_channel(channel)
        if kind in _BOOK_TYPES and (sid is None or seq is None):
            self._add(payload, received_at_ns, stream if sid is not None else None, _NO_NUMBER, _UNREADABLE)
            return
        if stream is None:
            stream = self._streams.open_by_data(sid, channel, received_at_ns) if sid is not None else None
            if stream is None:
                self._add(payload, received_at_ns, None, _NO_NUMBER, _kind_without_stream(sid, channel))
                return
        if seq is None:
            if channel is None:
                self._add(payload, received_at_ns, stream, _NO_NUMBER, _UNKNOWN_TYPE)
            else:
                self._add(payload, received_at_ns, stream, stream.unnumbered(), _DATA)
            return
        numbered = self._check_number(stream, seq, payload, received_at_ns, control=False)
        if numbered is None:
            self._add(payload, received_at_ns, stream, _NO_NUMBER, _REPEATED)
        elif channel is None:
            if numbered.is_book:
                self._record_unknown(numbered, seq, readable(kind, 80), parse_partial(payload).ticker or "")
            self._add(payload, received_at_ns, numbered, seq, _UNKNOWN_TYPE)
        elif kind in _BOOK_TYPES and not numbered.is_book:
            # Book subscriptions exist in book streams only; a book elsewhere was not requested.
            self._add(payload, received_at_ns, numbered, seq, _WRONG_CHANNEL)
        else:
            self._add(payload, received_at_ns, numbered, seq, _DATA)
            if kind == "orderbook_snapshot":
                self._follow_from_snapshot(payload, numbered, seq, head.id or None)

    def _process_broken(self, payload: bytes, received_at_ns: int) -> None:
        """Process a frame whose head cannot be read as it is: it is mended, or what can be read of it decides."""
        try:
            head = read_head(payload)
        except UnparsableMessage:
            self._process_unreadable(payload, received_at_ns)
        else:
            self._process(head, payload, received_at_ns)

    def _process_unreadable(self, payload: bytes, received_at_ns: int) -> None:
        remains = parse_partial(payload)
        sid, seq = remains.sid, remains.seq
        control = remains.type in CONTROL_TYPES
        stream = self._streams.by_sid.get(sid) if sid is not None else None
        if stream is None and sid is not None and not control:
            stream = self._streams.open_by_data(sid, CHANNEL_OF_TYPE.get(remains.type or ""), received_at_ns)
            if stream is None:
                self._add(payload, received_at_ns, None, _NO_NUMBER, _UNKNOWN_SID)
                return
        if stream is None or seq is None:
            self._add(payload, received_at_ns, stream, _NO_NUMBER, _UNREADABLE)
            return
        numbered = self._check_number(stream, seq, payload, received_at_ns, control=control)
        if numbered is not None:
            self._add(payload, received_at_ns, numbered, seq, _UNREADABLE)
        else:
            self._add(payload, received_at_ns, stream, _NO_NUMBER, _UNREADABLE if control else _REPEATED)

    def _check_number(
        self, stream: Stream, seq: int, payload: bytes, received_at_ns: int, *, control: bool
    ) -> Stream | None:
        """Check a number; return the frame's stream, which a reset replaces, or None if the number is not new."""
        status = stream.classify(seq, payload, control=control)
        if status is SequenceStatus.REPEAT:
            self.counters.duplicates += 1
            return None
        if status is SequenceStatus.SHARED and control:
            return None
        if status is SequenceStatus.GAP:
            self._gap(stream, seq, received_at_ns)
        elif status is SequenceStatus.RESET:
            self._gap(stream, seq, received_at_ns)
            self._streams.end(stream, received_at_ns, "sequence_reset")
            stream = self._streams.open(stream.sid, stream.channel, received_at_ns, first_known=False)
        stream.advance(seq, payload, control=control)
        return stream

    def _gap(self, stream: Stream, seq: int, received_at_ns: int) -> None:
        self.counters.gaps += 1
        expected = stream.last_seq + 1
        followed = self._streams.gap(stream, seq, received_at_ns)
        self._output.add_alarm("gap", f"{stream.channel}: expected {expected}, got {seq}")
        if stream.is_book:
            self._subscriptions.on_gap(followed, self._now_ns)

    def _follow_from_snapshot(self, payload: bytes, stream: Stream, seq: int, command_id: int | None) -> None:
        ticker = read_ticker(payload)
        if ticker is None or not self._subscriptions.accepts_snapshot(ticker, command_id):
            return
        self._streams.end_book_subscriptions(stream, [ticker], seq, "snapshot")
        self._streams.start_book_subscription(stream, ticker, seq, self._subscriptions.wanted[ticker])
        self._subscriptions.snapshot_came(ticker, command_id, self._now_ns)

    def _record_unknown(self, stream: Stream, seq: int, frame_type: str, ticker: str) -> None:
        """Record that a number may have changed a book: the first of its kind after each snapshot suffices."""
        followed = stream.followed if not ticker else [ticker] if ticker in stream.followed else []
        if not followed:
            return
        if len(stream.unknown) >= _MOST_UNKNOWN:
            frame_type = _ANY_TYPE
        kind = frame_type, ticker
        newest = stream.followed[ticker] if ticker else stream.newest_start
        if stream.unknown.get(kind, 0) < newest:
            stream.unknown[kind] = seq
            self._output.batch.mark(UnknownFrame(stream.id, seq, frame_type, ticker))
        self._subscriptions.check_books(followed)

    # -- responses to commands

    def _process_response(self, head: Head, payload: bytes, received_at_ns: int) -> None:
        try:
            frame = parse_frame(payload)
        except UnparsableMessage:
            self._process_unreadable(payload, received_at_ns)
            return
        if frame.type == "subscribed":
            self._add(payload, received_at_ns, None, _NO_NUMBER, _CONTROL)
            self._subscribed(frame, received_at_ns)
            return
        sid, seq = head.sid, head.seq
        stream = self._streams.by_sid.get(sid) if sid is not None else None
        if stream is None and sid is not None and frame.type == "ok":
            channel = self._subscriptions.merged_channel(frame.id)
            if channel is not None:
                # The channel was open on the server: numbers go on from wherever they are.
                stream = self._open(sid, channel, received_at_ns, first_known=False)
        numbered = None
        if stream is not None and seq is not None:
            numbered = self._check_number(stream, seq, payload, received_at_ns, control=True)
            stream = numbered or stream
        self._add(payload, received_at_ns, stream, _NO_NUMBER if numbered is None else seq or 0, _CONTROL)
        self._responses.handle(frame, stream, received_at_ns, self._now_ns)

    def _subscribed(self, frame: Frame, received_at_ns: int) -> None:
        body = frame.body
        assert isinstance(body, SubscribedBody)  # noqa: S101 - parse gives no other body for this type
        known = self._streams.by_sid.get(body.sid)
        if known is None or known.channel != body.channel:
            self._open(body.sid, body.channel, received_at_ns, first_known=True)
        self._subscriptions.opened(body.channel, body.sid, frame.id, self._now_ns)

    def _open(self, sid: int, channel: str, received_at_ns: int, *, first_known: bool) -> Stream:
        """Open a stream in place of those of the same sid or channel."""
        for old in self._streams:
            if old.sid == sid or old.channel == channel:
                followed = self._streams.end(old, received_at_ns, "replaced")
                self._subscriptions.mark_lost(followed, self._now_ns, request_now=False)
        return self._streams.open(sid, channel, received_at_ns, first_known=first_known)


def _kind_without_stream(sid: int | None, channel: str | None) -> int:
    """Return the kind of a frame of no open stream."""
    if sid is not None:
        return _UNKNOWN_SID
    return _UNKNOWN_TYPE if channel is None else _NO_SID
