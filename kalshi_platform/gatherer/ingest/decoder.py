"""Decodes blocks of a journal into records: frames become rows or dead letters, marks become the ledger. Pure.

The same blocks give the same records, today or in a year. The rules behind the coverage claims that are not the
session's (`exchange.protocol.session`):
- A frame that cannot be parsed is a dead letter; it ends the book subscription of its market, or of all markets of its
  stream if it names none, at the number before it.
- A book subscription starts only at a snapshot that could be decoded.
- Where a block of the journal is missing, the claims that it may concern end at the last number before it.
- A frame of an unknown type is a dead letter that ends nothing; so is one of no open stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.lenient_json import decode_json
from kalshi_platform.exchange.parse.messages import (
    Body,
    DeltaBody,
    LifecycleBody,
    PartialFrame,
    SnapshotBody,
    TickerBody,
    TradeBody,
    parse_frame,
    parse_partial,
)
from kalshi_platform.exchange.parse.rest import parse_rest_books
from kalshi_platform.exchange.protocol.session import CONTROL_TYPES
from kalshi_platform.exchange.protocol.session_model import Alarm
from kalshi_platform.exchange.responses import get_list
from kalshi_platform.gatherer.ingest.dead_letter_limit import DeadLetterLimit
from kalshi_platform.gatherer.ingest.delta_decoder import UNDECODABLE, Names, decode_delta, decode_deltas
from kalshi_platform.gatherer.ingest.open_streams import PROCESS, OpenStream, OpenStreams, Stream
from kalshi_platform.gatherer.journal.block_format import Block, Damage
from kalshi_platform.gatherer.settings import DEAD_LETTERS_PER_MINUTE
from kalshi_platform.market.frames import FrameBatch, FrameKind, GathererStarted, RestBooksReceived
from kalshi_platform.market.names import readable
from kalshi_platform.market.parts import WHOLE, MarketPart
from kalshi_platform.market.records import (
    NO_STREAM,
    BookDelta,
    BookSnapshot,
    DeadLetter,
    LifecycleEvent,
    Record,
    SequenceConsumed,
    SessionClosed,
    TickerUpdate,
    Trade,
)
from kalshi_platform.market.times import us_from_rfc3339
from kalshi_platform.market.units import delta_e2, price_e4

_DATA = int(FrameKind.DATA)
# From how many frames on decoding them together is the faster way.
_RUN = 10
_NOTHING = PartialFrame(None, None, None, None)


class Decoded(msgspec.Struct, gc=False):
    """Holds what blocks gave: records in writing order, alarms, and what is to be received again.

    `lost_claims`: books that are to be subscribed again. `damaged_sessions`: sessions of which marks are lost, so that
    the books they follow are not known; a living one is to be opened again.
    """

    records: list[Record] = msgspec.field(default_factory=list)
    alarms: list[Alarm] = msgspec.field(default_factory=list)
    lost_claims: tuple[str, ...] = ()
    damaged_sessions: frozenset[int] = frozenset()


class Decoder:
    """Decodes the blocks of one gatherer's journal in their order."""

    def __init__(self, shard: MarketPart = WHOLE, dead_letters_per_minute: int = DEAD_LETTERS_PER_MINUTE) -> None:
        """Start where nothing is open; trades and tickers of markets outside `shard` give no rows."""
        self.dead_letters = 0
        self.scale_contradictions = 0
        self._shard = shard
        self._dead_letters_per_minute = dead_letters_per_minute
        self._open = OpenStreams()
        self._alarms: list[Alarm] = []
        self._limits: dict[int, DeadLetterLimit] = {}
        self._names = Names()
        self._session_id = PROCESS
        self._rest: RestBooksReceived | None = None
        self._last_ns = 0
        self._damages: list[Damage] = []

    @property
    def book_subscriptions(self) -> int:
        """Return how many book subscriptions are open."""
        return sum(len(stream.books) for stream in self._open.by_id.values())

    def set_open(self, sessions: Mapping[int, int], streams: Iterable[OpenStream]) -> None:
        """Take from the ledger what is open, after the blocks of about two minutes before its position were decoded.

        Of those only what counts equal rows, dead letters and marks is kept. `sessions`: when each was opened, in ns.
        """
        self._open.set_open(sessions, streams)
        # It was reported when it was decoded for the first time.
        self._damages.clear()

    def decode(self, item: Block | Damage) -> Decoded:
        """Decode the next part of the journal."""
        opened = self._open
        if isinstance(item, Damage):
            opened.doubt()
            self._damages.append(item)
        else:
            self._decode_block(item)
        if self._damages and self._last_ns:
            self._report_damages()
        decoded = Decoded(opened.records, self._alarms, tuple(opened.lost_claims), frozenset(opened.damaged_sessions))
        opened.records, self._alarms = [], []
        opened.lost_claims, opened.damaged_sessions = {}, set()
        return decoded

    # -- blocks

    def _decode_block(self, block: Block) -> None:
        opened, batch = self._open, block.batch
        self._session_id, self._last_ns = block.session_id, block.received_at_ns
        opened.enter(block)
        at = 0
        for before, mark in batch.marks:
            if before > at:
                self._decode_frames(batch, at, before)
                at = before
            if type(mark) is RestBooksReceived:
                self._rest = mark
            else:
                if type(mark) is SessionClosed:
                    self._flush_counts(last=True)
                elif type(mark) is GathererStarted:
                    # Sessions of a former process are over.
                    self._limits = {PROCESS: self._limits[PROCESS]} if PROCESS in self._limits else {}
                opened.apply(mark, restated=block.restated)
        if at < len(batch.payloads):
            self._decode_frames(batch, at, len(batch.payloads))
        self._flush_counts(last=False)

    def _decode_frames(self, batch: FrameBatch, low: int, high: int) -> None:
        """Decode frames between two marks: many deltas of one stream together, others one by one."""
        if high - low >= _RUN and self._decode_run(batch, low, high):
            return
        streams, names = self._open.by_id, self._names
        add = self._open.records.append
        stream: Stream | None = None
        stream_of = NO_STREAM
        columns = (batch.payloads, batch.received_at_ns, batch.stream_ids, batch.numbers, batch.kinds)
        for payload, received_at_ns, stream_id, number, kind in islice(zip(*columns, strict=True), low, high):
            if stream_id != stream_of:
                stream, stream_of = streams.get(stream_id), stream_id
            # The next delta of a book stream in today's shape, as nearly every frame is; the general path would do the
            # same with it.
            if (
                kind == _DATA
                and stream is not None
                and stream.is_book
                and number == stream.last + 1
                and not stream.doubtful
            ):
                try:
                    msg = decode_delta(payload).msg
                    ticker = names[msg.market_ticker]
                    price, change = price_e4(msg.price_dollars), delta_e2(msg.delta_fp)
                    time = us_from_rfc3339(msg.ts)
                except UNDECODABLE:
                    pass
                else:
                    stream.last = number
                    occurrence = stream.occurrences.next(number, time, ticker, msg.side, price, change)
                    add(BookDelta(ticker, msg.side, price, change, time, received_at_ns, stream_id, number, occurrence))
                    continue
            self._decode_frame(stream, payload, received_at_ns, number, kind)

    def _decode_run(self, batch: FrameBatch, low: int, high: int) -> bool:
        """Decode the next deltas of one book stream in today's shape; return False, with nothing done, for others.

        One by one they give the same rows, in half as much time again.
        """
        stream = self._open.by_id.get(batch.stream_ids[low])
        if stream is None or not stream.is_book or stream.doubtful:
            return False
        size, numbers = high - low, batch.numbers[low:high]
        if (
            batch.stream_ids[low:high].count(stream.id) != size
            or batch.kinds[low:high].count(_DATA) != size
            or numbers != list(range(stream.last + 1, stream.last + 1 + size))
        ):
            return False
        deltas = decode_deltas(
            stream.id,
            batch.payloads[low:high],
            batch.received_at_ns[low:high],
            numbers,
            self._names,
            stream.occurrences,
        )
        if deltas is None:
            return False
        stream.last = numbers[-1]
        self._open.records += deltas
        return True

    def _decode_frame(self, stream: Stream | None, payload: bytes, received_at_ns: int, number: int, kind: int) -> None:
        is_taken = False
        if stream is not None and number > 0:
            is_taken = self._open.advance(stream, number, received_at_ns)
        if kind == FrameKind.REPEATED:
            return
        if kind == FrameKind.REST_BOOKS:
            self._decode_books(payload, received_at_ns)
            return
        if kind == FrameKind.CONTROL:
            if stream is not None and number > 0:
                stream.control_at = number
                self._open.records.append(SequenceConsumed(stream.id, number))
            return
        try:
            row = self._row(stream, payload, received_at_ns, number, kind)
        except UnparsableMessage as error:
            self._add_unparsable(stream, payload, received_at_ns, number, error, is_taken=is_taken)
            return
        if row is not None:
            self._open.records.append(row)
        elif stream is not None and number > 0 and not is_taken:
            self._open.records.append(SequenceConsumed(stream.id, number))

    # -- content

    def _row(self, stream: Stream | None, payload: bytes, received_at_ns: int, number: int, kind: int) -> Record | None:
        """Return the row of a frame, None for one of another shard. Raises UnparsableMessage for a dead letter."""
        if kind == FrameKind.UNKNOWN_SID:
            raise UnparsableMessage("unknown_sid", f"sid {parse_partial(payload).sid} is not open")
        if kind == FrameKind.UNKNOWN_TYPE:
            raise UnparsableMessage("unknown_type", readable(parse_partial(payload).type or "", 80))
        frame = parse_frame(payload)
        if stream is None:
            raise UnparsableMessage("no_sid", f"{frame.type} without sid, and its channel is not open")
        body = frame.body
        if isinstance(body, DeltaBody | SnapshotBody):
            if not stream.is_book:
                raise UnparsableMessage("wrong_channel", f"{frame.type} in a stream of {stream.channel}")
            return self._book_row(stream, body, received_at_ns, number)
        return self._row_beside_books(stream, body, received_at_ns, number)

    def _book_row(self, stream: Stream, body: DeltaBody | SnapshotBody, received_at_ns: int, number: int) -> Record:
        if isinstance(body, DeltaBody):
            ticker, side, price, change, time = body
            occurrence = stream.occurrences.next(number, time, ticker, side, price, change)
            return BookDelta(ticker, side, price, change, time, received_at_ns, stream.id, number, occurrence)
        ticker, yes, no = body
        stream.snapshot = ticker, number
        scale = self._open.session(stream.session_id).scale
        contradictions = scale.contradictions
        if scale.observe(ticker, yes, no):
            detail = f"no-side prices are not on the no-leg scale that was asked for; the last book was {ticker}"
            self._alarms.append(Alarm("price_scale", detail))
        self.scale_contradictions += scale.contradictions - contradictions
        return BookSnapshot(
            ticker, "ws", received_at_ns // 1_000, received_at_ns, yes, no, stream_id=stream.id, seq=number
        )

    def _row_beside_books(self, stream: Stream, body: Body, received_at_ns: int, number: int) -> Record | None:
        if isinstance(body, LifecycleBody):
            return LifecycleEvent(*body, received_at_ns, stream.id, number)
        if isinstance(body, TradeBody | TickerBody):
            # The exchange sends both of all markets, so that those of a market are there before anything is known of
            # it; the numbers of other shards stay, so that no gap is seen.
            if self._shard.total > 1 and not self._shard.holds(body.ticker):
                return None
            if isinstance(body, TradeBody):
                return Trade(*body, received_at_ns, "ws", None, stream.id, number)
            return TickerUpdate(*body, received_at_ns, stream.id, number)
        raise UnparsableMessage("shape", "a frame that gives no row")

    def _decode_books(self, payload: bytes, received_at_ns: int) -> None:
        """Decode the body of an answer with whole books, described by the last mark."""
        described = self._rest or RestBooksReceived("rest_recovery", received_at_ns)
        try:
            books, refused = parse_rest_books(get_list(decode_json(payload)[0], "orderbooks"))
        except UnparsableMessage as error:
            books, refused = {}, [str(error)]
        moment_us = received_at_ns // 1_000 if described.snapshot_ts_us is None else described.snapshot_ts_us
        for ticker, (yes, no) in books.items():
            self._open.records.append(
                BookSnapshot(
                    ticker,
                    described.source,
                    moment_us,
                    received_at_ns,
                    yes,
                    no,
                    requested_at_ns=described.requested_at_ns,
                )
            )
        if refused:
            self._add_letter(payload, received_at_ns, "rest_book", refused[0], _NOTHING, None)

    # -- dead letters

    def _add_unparsable(
        self,
        stream: Stream | None,
        payload: bytes,
        received_at_ns: int,
        number: int,
        error: UnparsableMessage,
        *,
        is_taken: bool,
    ) -> None:
        """Record a frame that gives no row, with the number that it consumed, and end what it may concern."""
        remains = parse_partial(payload)
        if stream is not None and number > 0 and not is_taken:
            self._open.records.append(SequenceConsumed(stream.id, number))
        self._add_letter(payload, received_at_ns, error.reason, error.detail, remains, stream)
        if stream is None or not stream.is_book or remains.type in CONTROL_TYPES:
            return
        if error.reason != "unknown_type" or number <= 0:
            self._open.lose(stream, number, remains.ticker)

    def _add_letter(
        self,
        payload: bytes,
        received_at_ns: int,
        reason: str,
        detail: str,
        remains: PartialFrame,
        stream: Stream | None,
    ) -> None:
        """Record a dead letter; of a flood a sample is recorded, and the rest is counted."""
        self.dead_letters += 1
        limit = self._limits.get(self._session_id)
        if limit is None:
            limit = self._limits[self._session_id] = DeadLetterLimit(self._session_id, self._dead_letters_per_minute)
        if not limit.admits(received_at_ns, reason, len(payload)):
            if limit.is_first_counted(received_at_ns, reason):
                self._alarms.append(
                    Alarm("dead_letters_counted", f"{reason}: so many in a minute that the rest is counted")
                )
            return
        letter = DeadLetter(
            received_at_ns,
            reason,
            detail,
            payload,
            stream.id if stream else NO_STREAM,
            remains.seq or 0,
            stream.channel if stream else None,
            readable(remains.ticker) if remains.ticker else None,
        )
        self._open.records.append(letter)
        self._alarms.append(Alarm("dead_letter", f"{reason}: {detail}", (letter.ticker,) if letter.ticker else ()))

    def _flush_counts(self, *, last: bool) -> None:
        limit = self._limits.get(self._session_id)
        if limit is not None:
            self._open.records += limit.counts()
            if last:
                del self._limits[self._session_id]

    def _report_damages(self) -> None:
        damages, self._damages = self._damages, []
        self._session_id = PROCESS
        for damage in damages:
            if damage.is_torn:
                continue
            detail = f"segment {damage.segment} at {damage.position.offset}, {damage.size} bytes: {damage.what}"
            self._alarms.append(Alarm("journal_damaged", detail))
            self._add_letter(damage.payload, self._last_ns, "journal_damaged", detail, _NOTHING, None)
