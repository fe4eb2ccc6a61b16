"""Runs one WebSocket connection as a pure state machine: frames in; records, commands and alarms out.

No I/O and no clock: the caller passes every frame with its receive time, sends the commands in their order, and calls
`tick` about twice a second. Not thread-safe: one caller at a time. Records come in the order in which they must be
written; those that a subscribe or unsubscribe call causes come first in the next `receive`, `tick` or `close`.

The rules behind the coverage claims:
- Numbers (`seq`) are checked per sid over every frame that carries one, command responses included.
- A book subscription (one market in one stream) starts at the market's snapshot. A gap ends all book subscriptions of
  its sid at the last good number; rows are still recorded, and each starts again with the market's next snapshot.
- A second snapshot of a subscribed market ends its book subscription at the snapshot's number and starts another.
- A frame that cannot be parsed ends the book subscription of its market, or of all markets of its sid if it names none.
- A frame of an unknown *type* ends none: it is recorded before its number, and a snapshot of each market that it may
  concern is requested, which shows whether the book has changed. Readers of the ledger claim accordingly.
- A delete ends the book subscription at the last number received before the command was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.messages import (
    Body,
    DeltaBody,
    Frame,
    LifecycleBody,
    PartialFrame,
    SnapshotBody,
    SubscribedBody,
    TickerBody,
    TradeBody,
    decode,
    delta_values,
    frame_of,
    parse_partial,
)
from kalshi_platform.exchange.protocol.command_responses import ResponseHandler
from kalshi_platform.exchange.protocol.dead_letter_limit import DeadLetterLimit
from kalshi_platform.exchange.protocol.dead_letters import DeadLetterSink
from kalshi_platform.exchange.protocol.price_scale import PriceScaleMonitor
from kalshi_platform.exchange.protocol.sequence import SequenceStatus, Stream
from kalshi_platform.exchange.protocol.session_model import (
    NS_PER_S,
    Alarm,
    SessionConfig,
    SessionCounters,
    SessionOutput,
)
from kalshi_platform.exchange.protocol.stream_registry import StreamRegistry
from kalshi_platform.exchange.protocol.subscriptions import Subscriptions
from kalshi_platform.exchange.protocol.unacknowledged_frames import UnacknowledgedFrames
from kalshi_platform.exchange.wire.ws import DeltaFrame
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    LifecycleEvent,
    Record,
    SequenceConsumed,
    TickerUpdate,
    Trade,
    UnknownFrame,
)

__all__ = ["Alarm", "Session", "SessionConfig", "SessionCounters", "SessionOutput"]

_CONTROL_TYPES = frozenset({"subscribed", "ok", "unsubscribed", "error"})
# A flood of ever new types must not be remembered one by one.
_MOST_UNKNOWN = 1_000
_ANY_TYPE = "(one of many)"
_BOOK_TYPES = frozenset({"orderbook_delta", "orderbook_snapshot"})


class Session:
    """Holds the state of one connection."""

    def __init__(self, session_id: int, new_stream_id: Callable[[], int], config: SessionConfig | None = None) -> None:
        """Start a session; `new_stream_id` returns a number that no other stream of this gatherer has or had."""
        self.session_id = session_id
        self.counters = SessionCounters()
        self._config = config or SessionConfig()
        self._subscriptions = Subscriptions(self._config)
        self._output = SessionOutput()
        self._streams = StreamRegistry(session_id, new_stream_id, self._output)
        self._responses = ResponseHandler(self._streams, self._subscriptions, self._output)
        limit = DeadLetterLimit(session_id, self._config.dead_letters_per_minute)
        self._dead_letters = DeadLetterSink(self._output, self.counters, limit)
        self._unacknowledged = UnacknowledgedFrames(self._config.max_unacknowledged_frames)
        self._scale = PriceScaleMonitor()
        self._last_recheck_ns: int | None = None
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

    def pop_records(self) -> list[Record]:
        """Return the records caused by the calls above, without waiting for the next frame."""
        return self._output.pop_records()

    # -- frames and time

    def receive(self, payload: bytes | str, received_at_ns: int) -> SessionOutput:
        """Process one frame, for a caller with one clock only."""
        return self.receive_all([(payload, received_at_ns)], received_at_ns)

    def receive_all(self, frames: Iterable[tuple[bytes | str, int]], now_ns: int) -> SessionOutput:
        """Process the frames of one socket read, each with its receive time, which is only recorded.

        `now_ns` is a time of the clock of `tick`, by which deadlines are counted: a monotonic one, because a wall clock
        is set now and then.
        """
        self._now_ns = now_ns
        for payload, received_at_ns in frames:
            self._process(payload, received_at_ns)
        return self._flush()

    def tick(self, now_ns: int) -> SessionOutput:
        """Check the deadlines of unanswered commands, missing snapshots and frames of unknown sids."""
        self._now_ns = now_ns
        self._output.alarms += self._subscriptions.tick(now_ns)
        if self._unacknowledged:
            self._discard_unacknowledged(now_ns - int(self._config.unacknowledged_for_s * NS_PER_S))
        self._dead_letters.flush_counts()
        return self._flush()

    def close(self, now_ns: int, reason: str) -> list[Record]:
        """End every book subscription and stream, because the connection ended; return the last records."""
        self._discard_unacknowledged(None)
        self._dead_letters.flush_counts()
        for stream in self._streams:
            self._streams.end(stream, now_ns, reason)
        return self.pop_records()

    # -- state

    def out_of_sync(self) -> set[str]:
        """Return the markets that lost a frame and have no new snapshot yet."""
        return {ticker for ticker, each in self._subscriptions.pending.by_ticker.items() if each.after_loss}

    def waiting(self) -> set[str]:
        """Return the wanted markets without a valid snapshot, for any reason."""
        return set(self._subscriptions.pending.by_ticker)

    def unanswered_snapshots(self) -> set[str]:
        """Return the markets that sent no snapshot to repeated requests, or that the exchange refused."""
        return set(self._subscriptions.pending.unanswered)

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

    def _process(self, payload: bytes | str, received_at_ns: int) -> None:
        self.counters.frames += 1
        try:
            wire = decode(payload)
            if type(wire) is DeltaFrame and self._next_delta(wire, payload, received_at_ns):
                return
            frame = frame_of(wire)
        except UnparsableMessage as error:
            self._process_unparsable(payload, received_at_ns, error)
            return
        kind = frame.type
        if kind == "subscribed":
            self._subscribed(frame, received_at_ns)
            return
        control = kind in _CONTROL_TYPES
        sid = frame.sid
        stream = self._streams.by_sid.get(sid) if sid is not None else self._streams.of_type(kind)
        if stream is None:
            self._process_without_stream(frame, payload, received_at_ns, control=control)
            return
        seq = frame.seq
        if seq is None:
            if control:
                self._responses.handle(frame, stream, received_at_ns, self._now_ns)
            else:
                self._append_row(frame, stream, stream.unnumbered(), received_at_ns)
            return
        if seq == stream.last_seq + 1:
            stream.advance(seq, payload, control=control)
        else:
            numbered = self._check_number(stream, seq, payload, received_at_ns, control=control)
            if numbered is None:
                if control:
                    self._responses.handle(frame, stream, received_at_ns, self._now_ns)
                return
            stream = numbered
        if control:
            self._output.records.append(SequenceConsumed(stream.id, seq))
            self._responses.handle(frame, stream, received_at_ns, self._now_ns)
        elif stream.is_book or kind not in _BOOK_TYPES:
            self._append_row(frame, stream, seq, received_at_ns)
        else:
            # Book subscriptions exist in book streams only; a book elsewhere was not requested.
            self._dead_letters.mark_consumed(stream, seq)
            detail = f"{kind} in a stream of {stream.channel}"
            self._dead_letters.add(payload, received_at_ns, "wrong_channel", detail, parse_partial(payload), stream)

    def _next_delta(self, wire: DeltaFrame, payload: bytes | str, received_at_ns: int) -> bool:
        """Process the next delta of a book stream, as nearly every frame is; return False, unchanged, for any other.

        Raises UnparsableMessage, also with the state unchanged.
        """
        sid, seq = wire.sid, wire.seq
        if sid is None or seq is None:
            return False
        stream = self._streams.by_sid.get(sid)
        if stream is None or seq != stream.last_seq + 1 or not stream.is_book:
            return False
        ticker, side, price, change, time = delta_values(wire)
        stream.advance(seq, payload, control=False)
        occurrence = stream.occurrences.next(time, ticker, side, price, change)
        self._output.records.append(
            BookDelta(ticker, side, price, change, time, received_at_ns, stream.id, seq, occurrence)
        )
        return True

    def _check_number(
        self, stream: Stream, seq: int, payload: bytes | str, received_at_ns: int, *, control: bool
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

    def _append_row(self, frame: Frame, stream: Stream, seq: int, received_at_ns: int) -> None:
        body = frame.body
        records = self._output.records
        if type(body) is DeltaBody:
            ticker, side, price, change, time = body
            occurrence = stream.occurrences.next(time, ticker, side, price, change)
            records.append(BookDelta(ticker, side, price, change, time, received_at_ns, stream.id, seq, occurrence))
        elif type(body) is SnapshotBody:
            self._snapshot(body, frame, stream, seq, received_at_ns)
        else:
            row = to_record(body, stream, seq, received_at_ns)
            if row is not None:
                records.append(row)

    def _snapshot(self, body: SnapshotBody, frame: Frame, stream: Stream, seq: int, received_at_ns: int) -> None:
        ticker, yes, no = body
        follow = self._subscriptions.accepts_snapshot(ticker, frame.id)
        if follow:
            self._streams.end_book_subscriptions(stream, [ticker], seq, "snapshot")
        self._output.records.append(
            BookSnapshot(ticker, "ws", received_at_ns // 1_000, received_at_ns, yes, no, stream_id=stream.id, seq=seq)
        )
        if follow:
            self._streams.start_book_subscription(stream, ticker, seq, self._subscriptions.wanted[ticker])
            self._subscriptions.snapshot_came(ticker, frame.id, self._now_ns)
        if self._scale.observe(ticker, yes, no):
            detail = f"no-side prices are not on the no-leg scale that was asked for; the last book was {ticker}"
            self._output.add_alarm("price_scale", detail)
        self.counters.scale_contradictions = self._scale.contradictions

    # -- streams

    def _subscribed(self, frame: Frame, received_at_ns: int) -> None:
        body = frame.body
        assert isinstance(body, SubscribedBody)  # noqa: S101 - parse gives no other body for this type
        known = self._streams.by_sid.get(body.sid)
        if known is None or known.channel != body.channel:
            self._open_with_buffered(body.sid, body.channel, received_at_ns, first_known=True)
        self._subscriptions.opened(body.channel, body.sid, frame.id, self._now_ns)

    def _open_with_buffered(self, sid: int, channel: str, received_at_ns: int, *, first_known: bool) -> None:
        """Open a stream and process the frames that arrived before the acknowledgement."""
        for old in self._streams:
            if old.sid == sid or old.channel == channel:
                followed = self._streams.end(old, received_at_ns, "replaced")
                self._subscriptions.mark_lost(followed, self._now_ns, request_now=False)
        buffered = self._unacknowledged.pop(sid)
        self._streams.open(sid, channel, buffered[0][1] if buffered else received_at_ns, first_known=first_known)
        for payload, at_ns in buffered:
            self.counters.frames -= 1
            self._process(payload, at_ns)

    def _process_without_stream(
        self, frame: Frame, payload: bytes | str, received_at_ns: int, *, control: bool
    ) -> None:
        """Process a frame of a sid that was not acknowledged yet: data may arrive before its `subscribed`."""
        sid = frame.sid
        if frame.type == "ok" and sid is not None:
            channel = self._subscriptions.merged_channel(frame.id)
            if channel is not None:
                # The channel was open on the server: numbers go on from wherever they are.
                self._open_with_buffered(sid, channel, received_at_ns, first_known=False)
                self.counters.frames -= 1
                self._process(payload, received_at_ns)
                return
        if control:
            self._responses.handle(frame, None, received_at_ns, self._now_ns)
        elif sid is None:
            self._dead_letters.add(
                payload, received_at_ns, "no_sid", f"{frame.type} without sid, and its channel is not open"
            )
        elif not self._unacknowledged.add(sid, payload, received_at_ns, self._now_ns):
            self._dead_letters.unknown_sid(sid, payload, received_at_ns)

    # -- unreadable frames

    def _process_unparsable(self, payload: bytes | str, received_at_ns: int, error: UnparsableMessage) -> None:
        remains = parse_partial(payload)
        sid = remains.sid
        is_unknown = False
        stream = self._streams.by_sid.get(sid) if sid is not None else None
        if stream is None:
            if sid is None or remains.type in _CONTROL_TYPES:
                self._dead_letters.add(payload, received_at_ns, error.reason, error.detail, remains)
            elif not self._unacknowledged.add(sid, payload, received_at_ns, self._now_ns):
                self._dead_letters.unknown_sid(sid, payload, received_at_ns)
            return
        control = remains.type in _CONTROL_TYPES
        seq = remains.seq
        if seq is not None:
            numbered = self._check_number(stream, seq, payload, received_at_ns, control=control)
            if numbered is None and not control:
                return
            if numbered is not None:
                stream = numbered
                is_unknown = error.reason == "unknown_type" and stream.is_book
                if is_unknown:
                    self._record_unknown(stream, seq, error.detail, remains.ticker or "")
                self._dead_letters.mark_consumed(stream, seq)
        self._dead_letters.add(payload, received_at_ns, error.reason, error.detail, remains, stream)
        if stream.is_book and not control and not is_unknown:
            self._handle_damaged_frame(stream, remains, stream.last_seq if seq is None else seq - 1)

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
            self._output.records.append(UnknownFrame(stream.id, seq, frame_type, ticker))
        self._subscriptions.check_books(followed)

    def _handle_damaged_frame(self, stream: Stream, remains: PartialFrame, seq_to: int) -> None:
        """End what a book frame that was lost in parsing may concern; without number the gap check does it."""
        if remains.ticker is not None:
            followed = [remains.ticker] if remains.ticker in stream.followed else []
            request_now = True
        elif remains.seq is not None:
            followed = list(stream.followed)
            # A flood of unknown frames must not become a flood of snapshots.
            now_ns, last_ns = self._now_ns, self._last_recheck_ns
            request_now = last_ns is None or now_ns - last_ns > self._config.snapshot_deadline_s * NS_PER_S
            self._last_recheck_ns = now_ns
        else:
            return
        self._streams.end_book_subscriptions(stream, followed, seq_to, "dead_letter")
        self._subscriptions.mark_lost(followed, self._now_ns, request_now=request_now)

    def _discard_unacknowledged(self, before_ns: int | None) -> None:
        """Turn frames of sids that were not acknowledged in time (None: all of them) into dead letters."""
        for sid, (payload, at_ns) in self._unacknowledged.pop_older(before_ns):
            self._dead_letters.unknown_sid(sid, payload, at_ns)


def to_record(body: Body, stream: Stream, seq: int, received_at_ns: int) -> Record | None:
    """Return the row of a frame that concerns no book; None for a body that gives none."""
    if type(body) is TradeBody:
        return Trade(*body, received_at_ns, "ws", None, stream.id, seq)
    if type(body) is TickerBody:
        return TickerUpdate(*body, received_at_ns, stream.id, seq)
    if type(body) is LifecycleBody:
        return LifecycleEvent(*body, received_at_ns, stream.id, seq)
    return None
