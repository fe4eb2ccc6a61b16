"""One WebSocket connection as a pure state machine: frames in; records, commands and alarms out.

No I/O and no clock: the caller gives every frame with its receive time, sends the commands in their order, and calls
`tick` about twice a second. Not thread-safe: one caller at a time. Records come in the order in which they must be
written; those that a subscribe or unsubscribe call causes come first in the next `receive`, `tick` or `close`.

What is claimed and what is not:
- Numbers are checked per sid over every frame that carries one, answers to commands included.
- A market is followed in a stream (a membership) from its snapshot. A gap ends all memberships of its sid at the last
  good number; rows are recorded on, and each membership begins again with the market's next snapshot.
- A second snapshot of a followed market ends its membership at the snapshot's number and starts the next one there.
- A frame that cannot be parsed ends the membership of its market; of all markets of its sid if it names none.
- One of an unknown *type* ends none: it goes on record before its number does, and a snapshot is asked of each market
  that it may concern, which shows whether the book was changed. Whoever reads the ledger claims accordingly.
- A delete ends the membership at the last number received before the command was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.messages import (
    DeltaBody,
    Frame,
    Remains,
    SnapshotBody,
    SubscribedBody,
    decode,
    delta_values,
    frame_of,
    salvage,
)
from kalshi_platform.exchange.protocol.command_responses import Answers
from kalshi_platform.exchange.protocol.dead_letter_limit import LetterLimit
from kalshi_platform.exchange.protocol.dead_letters import Burial
from kalshi_platform.exchange.protocol.price_scale import ScaleWatch
from kalshi_platform.exchange.protocol.records import row_of
from kalshi_platform.exchange.protocol.sequence import Stream, Verdict
from kalshi_platform.exchange.protocol.session_model import NS_PER_S, Alarm, Received, SessionConfig, SessionCounters
from kalshi_platform.exchange.protocol.session_output import Outbox
from kalshi_platform.exchange.protocol.stream_registry import Streams
from kalshi_platform.exchange.protocol.subscriptions import Subscriptions
from kalshi_platform.exchange.protocol.unacknowledged_frames import HeldFrames
from kalshi_platform.exchange.wire.ws import DeltaFrame
from kalshi_platform.market.records import BookDelta, BookSnapshot, Record, SequenceConsumed, UnknownFrame

__all__ = ["Alarm", "Received", "Session", "SessionConfig", "SessionCounters"]

_CONTROL_TYPES = frozenset({"subscribed", "ok", "unsubscribed", "error"})
# A flood of ever new types must not be remembered one by one.
_MOST_UNKNOWN = 1_000
_ANY_TYPE = "(one of many)"
_BOOK_TYPES = frozenset({"orderbook_delta", "orderbook_snapshot"})


class Session:
    """The state of one connection."""

    def __init__(self, session_id: int, new_stream_id: Callable[[], int], config: SessionConfig | None = None) -> None:
        """`new_stream_id` gives a number that no other stream of this gatherer has or had."""
        self.session_id = session_id
        self.counters = SessionCounters()
        self._config = config or SessionConfig()
        self._subscriptions = Subscriptions(self._config)
        self._outbox = Outbox()
        self._streams = Streams(session_id, new_stream_id, self._outbox)
        self._answers = Answers(self._streams, self._subscriptions, self._outbox)
        limit = LetterLimit(session_id, self._config.letters_per_minute)
        self._burial = Burial(self._outbox, self.counters, limit)
        self._held = HeldFrames(self._config.held_frames)
        self._scale = ScaleWatch()
        self._last_sweep_ns: int | None = None
        self._seen_changes = 0

    # -- what the caller wants

    def subscribe_books(self, markets: Mapping[str, int]) -> None:
        """Follow the books of `markets` (ticker → exchange_index). Commands come by `take_commands`."""
        self._subscriptions.want_books(markets)

    def unsubscribe_books(self, tickers: Iterable[str]) -> None:
        """Stop following; memberships end at the last number received so far."""
        tickers = list(tickers)
        for stream in self._streams:
            if stream.is_book:
                self._streams.end_memberships(stream, tickers, stream.last_seq, "unsubscribed")
        self._subscriptions.unwant_books(tickers)

    def subscribe_channels(self, channels: Iterable[str]) -> None:
        """Open channels for all markets, e.g. `trade`, `ticker`, `market_lifecycle_v2`."""
        self._subscriptions.want_channels(channels)

    def ask_what_is_open(self) -> None:
        """Ask which subscriptions the exchange serves: a sign of life, and what it no longer serves is opened again."""
        self._answers.ask_what_is_open()

    def take_commands(self) -> list[bytes]:
        """Commands caused by the calls above, to be sent in this order."""
        return self._subscriptions.take()

    def take_records(self) -> list[Record]:
        """Records caused by the calls above, for a caller that does not want to wait for the next frame."""
        return self._outbox.take_records()

    # -- what the exchange said

    def receive(self, payload: bytes | str, received_at_ns: int) -> Received:
        """Take one frame of a caller who has one clock only."""
        return self.receive_all([(payload, received_at_ns)], received_at_ns)

    def receive_all(self, frames: Iterable[tuple[bytes | str, int]], now_ns: int) -> Received:
        """Take the frames of one socket read, each with its receive time, which is only written down.

        `now_ns`: of the clock of `tick`, by which deadlines are counted. A wall clock is set now and then, and must not
        be that one.
        """
        self._subscriptions.now_ns = now_ns
        for payload, received_at_ns in frames:
            self._process(payload, received_at_ns)
        return self._flush()

    def tick(self, now_ns: int) -> Received:
        """Look at the deadlines: unanswered commands, missing snapshots, frames of unknown sids."""
        self._subscriptions.now_ns = now_ns
        self._outbox.alarms += self._subscriptions.tick()
        if self._held:
            self._give_up_held(now_ns - int(self._config.held_for_s * NS_PER_S))
        self._burial.tell_counts()
        return self._flush()

    def close(self, now_ns: int, reason: str) -> list[Record]:
        """End every membership and stream; the connection is gone."""
        self._give_up_held(None)
        self._burial.tell_counts()
        for stream in self._streams:
            self._streams.end(stream, now_ns, reason)
        return self.take_records()

    # -- what the caller may ask

    def suspects(self) -> set[str]:
        """Markets that lost a frame and have no new snapshot yet."""
        return {ticker for ticker, wait in self._subscriptions.waits.by_ticker.items() if wait.after_loss}

    def waiting(self) -> set[str]:
        """Wanted markets without a valid snapshot, for whatever reason."""
        return set(self._subscriptions.waits.by_ticker)

    def unanswered_snapshots(self) -> set[str]:
        """Markets that sent no snapshot although asked again, or that the exchange refused."""
        return set(self._subscriptions.waits.unanswered)

    def mute(self) -> set[str]:
        """Markets that sent no snapshot although asked again, and were not refused either: settled ones are so."""
        waits = self._subscriptions.waits
        return waits.unanswered - waits.refused

    def wanted(self) -> set[str]:
        """Markets whose books are subscribed or about to be."""
        return set(self._subscriptions.wanted)

    def followed(self) -> set[str]:
        """Markets with an open membership."""
        return {ticker for stream in self._streams for ticker in stream.members}

    def asked_rarely(self) -> int:
        """How many markets lose their claim again and again, and are asked for ever more rarely."""
        return self._subscriptions.asked_rarely()

    def memberships_changed(self) -> bool:
        """Whether `followed` may differ from what it was when this was last asked."""
        changes, self._seen_changes = self._seen_changes, self._streams.changes
        return changes != self._seen_changes

    def open_channels(self) -> set[str]:
        """Channels of which a stream is open."""
        return {stream.channel for stream in self._streams}

    def last_seqs(self) -> dict[int, int]:
        """The last number of every open stream, by stream_id."""
        return {stream.id: stream.last_seq for stream in self._streams}

    # -- frames

    def _flush(self) -> Received:
        outbox = self._outbox
        return Received(outbox.take_records(), self._subscriptions.take(), outbox.take_alarms())

    def _process(self, payload: bytes | str, received_at_ns: int) -> None:
        self.counters.frames += 1
        try:
            wire = decode(payload)
            if type(wire) is DeltaFrame and self._next_delta(wire, payload, received_at_ns):
                return
            frame = frame_of(wire)
        except UnparsableMessage as error:
            self._unparsable(payload, received_at_ns, error)
            return
        kind = frame.type
        if kind == "subscribed":
            self._subscribed(frame, received_at_ns)
            return
        control = kind in _CONTROL_TYPES
        sid = frame.sid
        stream = self._streams.by_sid.get(sid) if sid is not None else self._streams.of_type(kind)
        if stream is None:
            self._without_stream(frame, payload, received_at_ns, control=control)
            return
        seq = frame.seq
        if seq is None:
            if control:
                self._answers.take(frame, stream, received_at_ns)
            else:
                self._row(frame, stream, stream.unnumbered(), received_at_ns)
            return
        if seq == stream.last_seq + 1:
            stream.took(seq, payload, control=control)
        else:
            taken = self._number(stream, seq, payload, received_at_ns, control=control)
            if taken is None:
                if control:
                    self._answers.take(frame, stream, received_at_ns)
                return
            stream = taken
        if control:
            self._outbox.records.append(SequenceConsumed(stream.id, seq))
            self._answers.take(frame, stream, received_at_ns)
        elif stream.is_book or kind not in _BOOK_TYPES:
            self._row(frame, stream, seq, received_at_ns)
        else:
            # Memberships live in book streams only; a book elsewhere is none that was asked for.
            self._burial.consumed(stream, seq)
            detail = f"{kind} in a stream of {stream.channel}"
            self._burial.bury(payload, received_at_ns, "wrong_channel", detail, salvage(payload), stream)

    def _next_delta(self, wire: DeltaFrame, payload: bytes | str, received_at_ns: int) -> bool:
        """Take what nearly every frame is: the next delta of a book stream. False, with nothing done, for any other.

        Raises UnparsableMessage, also with nothing done.
        """
        sid, seq = wire.sid, wire.seq
        if sid is None or seq is None:
            return False
        stream = self._streams.by_sid.get(sid)
        if stream is None or seq != stream.last_seq + 1 or not stream.is_book:
            return False
        ticker, side, price, change, time = delta_values(wire)
        stream.took(seq, payload, control=False)
        occurrence = stream.occurrences.next(time, ticker, side, price, change)
        self._outbox.records.append(
            BookDelta(ticker, side, price, change, time, received_at_ns, stream.id, seq, occurrence)
        )
        return True

    def _number(
        self, stream: Stream, seq: int, payload: bytes | str, received_at_ns: int, *, control: bool
    ) -> Stream | None:
        """Judge a number; return the stream that the frame belongs to, None if it takes no (new) number."""
        verdict = stream.judge(seq, payload, control=control)
        if verdict is Verdict.REPEAT:
            self.counters.duplicates += 1
            return None
        if verdict is Verdict.SHARED and control:
            return None
        if verdict is Verdict.GAP:
            self._gap(stream, seq, received_at_ns)
        elif verdict is Verdict.RESET:
            self._gap(stream, seq, received_at_ns)
            self._streams.end(stream, received_at_ns, "sequence_reset")
            stream = self._streams.open(stream.sid, stream.channel, received_at_ns, first_known=False)
        stream.took(seq, payload, control=control)
        return stream

    def _gap(self, stream: Stream, seq: int, received_at_ns: int) -> None:
        self.counters.gaps += 1
        expected = stream.last_seq + 1
        members = self._streams.gap(stream, seq, received_at_ns)
        self._outbox.alarm("gap", f"{stream.channel}: expected {expected}, got {seq}")
        if stream.is_book:
            self._subscriptions.gap_seen(members)

    def _row(self, frame: Frame, stream: Stream, seq: int, received_at_ns: int) -> None:
        body = frame.body
        records = self._outbox.records
        if type(body) is DeltaBody:
            ticker, side, price, change, time = body
            occurrence = stream.occurrences.next(time, ticker, side, price, change)
            records.append(BookDelta(ticker, side, price, change, time, received_at_ns, stream.id, seq, occurrence))
        elif type(body) is SnapshotBody:
            self._snapshot(body, frame, stream, seq, received_at_ns)
        else:
            row = row_of(body, stream, seq, received_at_ns)
            if row is not None:
                records.append(row)

    def _snapshot(self, body: SnapshotBody, frame: Frame, stream: Stream, seq: int, received_at_ns: int) -> None:
        ticker, yes, no = body
        follow = self._subscriptions.may_follow(ticker, frame.id)
        if follow:
            self._streams.end_memberships(stream, [ticker], seq, "snapshot")
        self._outbox.records.append(
            BookSnapshot(ticker, "ws", received_at_ns // 1_000, received_at_ns, yes, no, stream_id=stream.id, seq=seq)
        )
        if follow:
            self._streams.follow(stream, ticker, seq, self._subscriptions.wanted[ticker])
            self._subscriptions.snapshot_came(ticker, frame.id)
        if self._scale.look(ticker, yes, no):
            detail = f"no-side prices are not on the no-leg scale that was asked for; the last book was {ticker}"
            self._outbox.alarm("price_scale", detail)
        self.counters.scale_contradictions = self._scale.contradictions

    # -- answers and the life of streams

    def _subscribed(self, frame: Frame, received_at_ns: int) -> None:
        body = frame.body
        assert isinstance(body, SubscribedBody)  # noqa: S101 - parse gives no other body for this type
        known = self._streams.by_sid.get(body.sid)
        if known is None or known.channel != body.channel:
            self._open_with_held(body.sid, body.channel, received_at_ns, first_known=True)
        self._subscriptions.opened(body.channel, body.sid, frame.id)

    def _open_with_held(self, sid: int, channel: str, received_at_ns: int, *, first_known: bool) -> None:
        """Open a stream and take in the frames that ran ahead of the acknowledgement."""
        for old in self._streams:
            if old.sid == sid or old.channel == channel:
                members = self._streams.end(old, received_at_ns, "replaced")
                self._subscriptions.lost(members, ask_now=False)
        held = self._held.take(sid)
        self._streams.open(sid, channel, held[0][1] if held else received_at_ns, first_known=first_known)
        for payload, at_ns in held:
            self.counters.frames -= 1
            self._process(payload, at_ns)

    def _without_stream(self, frame: Frame, payload: bytes | str, received_at_ns: int, *, control: bool) -> None:
        """A frame of a sid that was not acknowledged yet: data may run ahead of its `subscribed`."""
        sid = frame.sid
        if frame.type == "ok" and sid is not None:
            channel = self._subscriptions.merged_channel(frame.id)
            if channel is not None:
                # The channel was open on the server: numbers go on from wherever they are.
                self._open_with_held(sid, channel, received_at_ns, first_known=False)
                self.counters.frames -= 1
                self._process(payload, received_at_ns)
                return
        if control:
            self._answers.take(frame, None, received_at_ns)
        elif sid is None:
            self._burial.bury(
                payload, received_at_ns, "no_sid", f"{frame.type} without sid, and its channel is not open"
            )
        elif not self._held.hold(sid, payload, received_at_ns, self._subscriptions.now_ns):
            self._burial.unknown_sid(sid, payload, received_at_ns)

    # -- what cannot be placed

    def _unparsable(self, payload: bytes | str, received_at_ns: int, error: UnparsableMessage) -> None:
        remains = salvage(payload)
        sid = remains.sid
        is_unknown = False
        stream = self._streams.by_sid.get(sid) if sid is not None else None
        if stream is None:
            if sid is None or remains.type in _CONTROL_TYPES:
                self._burial.bury(payload, received_at_ns, error.reason, error.detail, remains)
            elif not self._held.hold(sid, payload, received_at_ns, self._subscriptions.now_ns):
                self._burial.unknown_sid(sid, payload, received_at_ns)
            return
        control = remains.type in _CONTROL_TYPES
        seq = remains.seq
        if seq is not None:
            taken = self._number(stream, seq, payload, received_at_ns, control=control)
            if taken is None and not control:
                return
            if taken is not None:
                stream = taken
                is_unknown = error.reason == "unknown_type" and stream.is_book
                if is_unknown:
                    self._unknown(stream, seq, error.detail, remains.ticker or "")
                self._burial.consumed(stream, seq)
        self._burial.bury(payload, received_at_ns, error.reason, error.detail, remains, stream)
        if stream.is_book and not control and not is_unknown:
            self._damaged(stream, remains, stream.last_seq if seq is None else seq - 1)

    def _unknown(self, stream: Stream, seq: int, frame_type: str, ticker: str) -> None:
        """Put on record that a number may have changed a book; only the first of its kind after each snapshot tells."""
        members = stream.members if not ticker else [ticker] if ticker in stream.members else []
        if not members:
            return
        if len(stream.unknown) >= _MOST_UNKNOWN:
            frame_type = _ANY_TYPE
        kind = frame_type, ticker
        newest = stream.members[ticker] if ticker else stream.newest_start
        if stream.unknown.get(kind, 0) < newest:
            stream.unknown[kind] = seq
            self._outbox.records.append(UnknownFrame(stream.id, seq, frame_type, ticker))
        self._subscriptions.prove(members)

    def _damaged(self, stream: Stream, remains: Remains, seq_to: int) -> None:
        """A book frame was lost in parsing; without number and market it is left to the gap check."""
        if remains.ticker is not None:
            members = [remains.ticker] if remains.ticker in stream.members else []
            ask_now = True
        elif remains.seq is not None:
            members = list(stream.members)
            # A flood of unknown frames must not become a flood of snapshots.
            now_ns, last_ns = self._subscriptions.now_ns, self._last_sweep_ns
            ask_now = last_ns is None or now_ns - last_ns > self._config.snapshot_deadline_s * NS_PER_S
            self._last_sweep_ns = now_ns
        else:
            return
        self._streams.end_memberships(stream, members, seq_to, "dead_letter")
        self._subscriptions.lost(members, ask_now=ask_now)

    def _give_up_held(self, before_ns: int | None) -> None:
        """Give up on frames of sids that nobody acknowledged (all of them if `before_ns` is None)."""
        for sid, (payload, at_ns) in self._held.take_older(before_ns):
            self._burial.unknown_sid(sid, payload, at_ns)
