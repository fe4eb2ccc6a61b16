"""Defines the records of the platform: one struct per row, and the ledger of what a gatherer received.

`stream_id` names one sid of one session (WebSocket connection) of one gatherer; `(stream_id, seq)` is the origin of a
row. Frames of a channel without `seq` get a negative running number, so that the pair stays unique.
Times: `exchange_ts_us` is Kalshi's clock in microseconds, `received_at_ns` is ours in nanoseconds, at the socket read.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Side: TypeAlias = Literal["yes", "no"]
SnapshotSource: TypeAlias = Literal["ws", "rest", "rest_recovery"]
TradeSource: TypeAlias = Literal["ws", "rest"]
Levels: TypeAlias = tuple[tuple[int, int], ...]
"""Bids of one side: (price_e4, count_e2), ascending by price, counts above zero."""

NO_STREAM = 0
"""`stream_id` of rows that came by REST."""


class BookDelta(msgspec.Struct, frozen=True, gc=False):
    """Holds a signed change of one level; `occurrence` counts equal rows within one stream, from 0."""

    ticker: str
    side: Side
    price_e4: int
    delta_e2: int
    exchange_ts_us: int
    received_at_ns: int
    stream_id: int
    seq: int
    occurrence: int


class BookSnapshot(msgspec.Struct, frozen=True, gc=False):
    """Holds a whole book.

    `snapshot_ts_us` is the receive time for 'ws' and 'rest_recovery', the poll's minute for 'rest'.
    """

    ticker: str
    source: SnapshotSource
    snapshot_ts_us: int
    received_at_ns: int
    yes: Levels
    no: Levels
    stream_id: int = NO_STREAM
    seq: int = 0
    requested_at_ns: int | None = None


class Trade(msgspec.Struct, frozen=True, gc=False):
    """Holds one trade; `exchange_ts_us` is floored to the millisecond, `created_time_us` keeps REST's microseconds."""

    trade_id: str
    ticker: str
    exchange_ts_us: int
    yes_price_e4: int
    no_price_e4: int
    count_e2: int
    taker_side: Side | None
    is_block_trade: bool
    received_at_ns: int
    source: TradeSource
    created_time_us: int | None = None
    stream_id: int = NO_STREAM
    seq: int = 0


class TickerUpdate(msgspec.Struct, frozen=True, gc=False):
    """Holds best prices and totals of one market, sent on any change; `fingerprint` is a hash of the content."""

    ticker: str
    exchange_ts_us: int
    fingerprint: int
    price_e4: int | None
    yes_bid_e4: int | None
    yes_ask_e4: int | None
    yes_bid_size_e2: int | None
    yes_ask_size_e2: int | None
    last_trade_size_e2: int | None
    volume_e2: int | None
    open_interest_e2: int | None
    dollar_volume: int | None
    dollar_open_interest: int | None
    received_at_ns: int
    stream_id: int
    seq: int


class LifecycleEvent(msgspec.Struct, frozen=True, gc=False):
    """Holds a change of a market, or of an event whose ticker it has; `content` is the message as canonical JSON."""

    ticker: str
    event_type: str
    exchange_ts_us: int | None
    content: str
    fingerprint: int
    received_at_ns: int
    stream_id: int
    seq: int


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """Holds bytes that could not become a row, with the reason."""

    received_at_ns: int
    reason: str
    detail: str
    payload: bytes
    stream_id: int = NO_STREAM
    seq: int = 0
    channel: str | None = None
    ticker: str | None = None


class UnknownFrame(msgspec.Struct, frozen=True, gc=False):
    """Records that a frame of an unknown type consumed a number of a book stream.

    `ticker` is the only market it may concern, or "" for any.
    """

    stream_id: int
    seq: int
    frame_type: str
    ticker: str = ""


class DeadLettersCounted(msgspec.Struct, frozen=True, gc=False):
    """Records how many dead letters of one minute and reason were counted instead of kept, in total so far.

    `counted_by`: the session whose frames they were, or another counter's number.
    """

    minute_us: int
    reason: str
    counted_by: int
    letters: int


class SessionOpened(msgspec.Struct, frozen=True, gc=False):
    """Records that one WebSocket connection of one gatherer was opened."""

    session_id: int
    connection: str
    url: str
    use_yes_price: bool
    opened_at_ns: int


class SessionClosed(msgspec.Struct, frozen=True, gc=False):
    """Records that a session ended, and why."""

    session_id: int
    closed_at_ns: int
    reason: str


class StreamOpened(msgspec.Struct, frozen=True, gc=False):
    """Records that a channel of a session was acknowledged, or that its first frame arrived."""

    stream_id: int
    session_id: int
    sid: int
    channel: str
    opened_at_ns: int


class StreamEnded(msgspec.Struct, frozen=True, gc=False):
    """Records that a stream ended, and why."""

    stream_id: int
    ended_at_ns: int
    reason: str


class BookSubscriptionStarted(msgspec.Struct, frozen=True, gc=False):
    """Records that a market's book is subscribed in a stream from its snapshot at `seq_from`."""

    stream_id: int
    ticker: str
    seq_from: int
    exchange_index: int = 0


class BookSubscriptionEnded(msgspec.Struct, frozen=True, gc=False):
    """Records that a book subscription ended at `seq_to`, which it includes.

    `seq_to` is the last number received before a delete command was sent, a gap, or the end of the stream.
    """

    stream_id: int
    ticker: str
    seq_to: int
    reason: str


class SequenceGap(msgspec.Struct, frozen=True, gc=False):
    """Records that `seq_expected` did not come; every book of the stream may be wrong."""

    stream_id: int
    seq_expected: int
    seq_seen: int
    detected_at_ns: int


class SequenceConsumed(msgspec.Struct, frozen=True, gc=False):
    """Records that a frame consumed a number without giving a row (command responses, dead letters)."""

    stream_id: int
    seq: int


StreamRow: TypeAlias = BookDelta | BookSnapshot | Trade | TickerUpdate | LifecycleEvent | DeadLetter
LedgerEntry: TypeAlias = (
    SessionOpened
    | SessionClosed
    | StreamOpened
    | StreamEnded
    | BookSubscriptionStarted
    | BookSubscriptionEnded
    | SequenceGap
    | SequenceConsumed
    | DeadLettersCounted
    | UnknownFrame
)
Record: TypeAlias = StreamRow | LedgerEntry
