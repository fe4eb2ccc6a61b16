"""Derives from the records of one batch what its commit writes into the ledger. Pure.

Every record that carries a positive number of a stream counts, in the order in which it was received; contiguous
numbers become one segment. Any split of a record list into batches gives the same union of segments and the same
sessions, streams, book subscriptions and gaps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kalshi_platform.market.records import (
    NO_STREAM,
    BookDelta,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    DeadLettersCounted,
    Record,
    SequenceGap,
    SessionClosed,
    SessionOpened,
    StreamEnded,
    StreamOpened,
    UnknownFrame,
)

_NEVER = 2**63
"""Later than every time."""


@dataclass
class Segment:
    """Holds contiguous numbers of one stream, and the exchange times of the deltas among them."""

    stream_id: int
    seq_from: int
    seq_to: int
    exchange_ts_min_us: int | None = None
    exchange_ts_max_us: int | None = None

    def add_exchange_time(self, exchange_ts_us: int) -> None:
        """Extend the times by one of a delta."""
        if self.exchange_ts_min_us is None or exchange_ts_us < self.exchange_ts_min_us:
            self.exchange_ts_min_us = exchange_ts_us
        if self.exchange_ts_max_us is None or exchange_ts_us > self.exchange_ts_max_us:
            self.exchange_ts_max_us = exchange_ts_us


@dataclass
class BookSubscription:
    """Describes a book subscription that started in this batch; `seq_to` is None while it lasts."""

    stream_id: int
    ticker: str
    seq_from: int
    exchange_index: int
    seq_to: int | None = None
    end_reason: str | None = None


@dataclass(frozen=True)
class Ending:
    """Describes the end of a book subscription of an earlier batch: the open one with `seq_from` below `before`."""

    stream_id: int
    ticker: str
    seq_to: int
    end_reason: str
    before: int


@dataclass
class Ledger:
    """Holds everything that one commit writes besides its rows."""

    sessions_opened: list[SessionOpened] = field(default_factory=list)
    sessions_closed: list[SessionClosed] = field(default_factory=list)
    streams_opened: list[StreamOpened] = field(default_factory=list)
    streams_ended: list[StreamEnded] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    book_subscriptions: list[BookSubscription] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    gaps: list[SequenceGap] = field(default_factory=list)
    letters_counted: list[DeadLettersCounted] = field(default_factory=list)
    unknown_frames: list[UnknownFrame] = field(default_factory=list)


def fold(records: Iterable[Record]) -> Ledger:
    """Return the ledger of `records`, which are in the order of their streams."""
    ledger = Ledger()
    running: dict[int, Segment] = {}
    started: dict[tuple[int, str], BookSubscription] = {}
    lists: dict[type, list[object]] = {
        SessionOpened: ledger.sessions_opened,  # type: ignore[dict-item]
        SessionClosed: ledger.sessions_closed,  # type: ignore[dict-item]
        StreamOpened: ledger.streams_opened,  # type: ignore[dict-item]
        StreamEnded: ledger.streams_ended,  # type: ignore[dict-item]
        SequenceGap: ledger.gaps,  # type: ignore[dict-item]
        DeadLettersCounted: ledger.letters_counted,  # type: ignore[dict-item]
        UnknownFrame: ledger.unknown_frames,  # type: ignore[dict-item]
    }
    for record in records:
        kind = type(record)
        if kind is BookDelta:
            # Nearly every record is the next delta of its stream, and later than those before it: that costs no call.
            seq: int = record.seq  # type: ignore[union-attr]
            time_us: int = record.exchange_ts_us  # type: ignore[union-attr, assignment]
            segment = running.get(record.stream_id)  # type: ignore[union-attr]
            if segment is not None and seq == segment.seq_to + 1 and time_us >= (segment.exchange_ts_max_us or _NEVER):
                segment.seq_to, segment.exchange_ts_max_us = seq, time_us
                continue
            segment = _count_number(record.stream_id, seq, running, ledger)  # type: ignore[union-attr]
            if segment is not None:
                segment.add_exchange_time(time_us)
        elif kind is BookSubscriptionStarted:
            _start_book_subscription(record, started, ledger)  # type: ignore[arg-type]
        elif kind is BookSubscriptionEnded:
            _end_book_subscription(record, started, ledger)  # type: ignore[arg-type]
        elif kind in lists:
            lists[kind].append(record)
        else:
            _count_number(record.stream_id, record.seq, running, ledger)  # type: ignore[union-attr]
    return ledger


def _count_number(stream_id: int, seq: int, running: dict[int, Segment], ledger: Ledger) -> Segment | None:
    """Add a number to its stream's segment; return that, or None for a number outside of streams."""
    segment = running.get(stream_id)
    if segment is not None and seq == segment.seq_to + 1:
        segment.seq_to = seq
        return segment
    if seq <= 0 or stream_id == NO_STREAM:
        return None
    if segment is None or not segment.seq_from <= seq <= segment.seq_to:
        segment = running[stream_id] = Segment(stream_id, seq, seq)
        ledger.segments.append(segment)
    return segment


def _start_book_subscription(
    record: BookSubscriptionStarted, started: dict[tuple[int, str], BookSubscription], ledger: Ledger
) -> None:
    book_subscription = BookSubscription(record.stream_id, record.ticker, record.seq_from, record.exchange_index)
    started[record.stream_id, record.ticker] = book_subscription
    ledger.book_subscriptions.append(book_subscription)


def _end_book_subscription(
    record: BookSubscriptionEnded, started: dict[tuple[int, str], BookSubscription], ledger: Ledger
) -> None:
    book_subscription = started.pop((record.stream_id, record.ticker), None)
    if book_subscription is not None:
        book_subscription.seq_to = record.seq_to
        book_subscription.end_reason = record.reason
        return
    # A newer snapshot ends a book subscription at the number where the next one starts: writing the same batch twice
    # must not mistake the next one for the one that ended.
    before = record.seq_to if record.reason == "snapshot" else record.seq_to + 1
    ledger.endings.append(Ending(record.stream_id, record.ticker, record.seq_to, record.reason, before))
