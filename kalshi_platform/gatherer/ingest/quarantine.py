"""The way aside: a record that must not, or cannot, be written as it is becomes a dead letter, and what rested on it
ends. Pure.

No record is so odd that it may hold up those behind it: texts are made storable, numbers that no column holds are left
out, and what the letter cannot say in its columns it says in its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from kalshi_platform.exchange.protocol.dead_letter_limit import DeadLetterLimit
from kalshi_platform.market.names import is_name, readable
from kalshi_platform.market.records import (
    NO_STREAM,
    BookDelta,
    BookSnapshot,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    DeadLetter,
    LifecycleEvent,
    Record,
    SequenceConsumed,
    SessionClosed,
    SessionOpened,
    StreamEnded,
    StreamOpened,
    TickerUpdate,
    Trade,
)
from kalshi_platform.market.times import US_PER_HOUR, datetime_from_us
from kalshi_platform.market.units import INT64_MAX

OUT_OF_BOUNDS = "out_of_bounds"
UNWRITABLE = "unwritable"
PARTITIONS_OF_A_BATCH = 24
"""A commit touches at most so many hours of its tables: each takes places in the server's lock table until its end."""
Dated = BookDelta | Trade | TickerUpdate
_DATED = (BookDelta, Trade, TickerUpdate)
_LONGEST_DETAIL = 1_000
_PAYLOAD_KEPT = 64 * 1024
# Texts of the ledger that say something and name nothing: they may be written otherwise than they came.
_REMARKS: dict[type, tuple[str, ...]] = {
    SessionOpened: ("connection", "url"),
    SessionClosed: ("reason",),
    StreamOpened: ("channel",),
    StreamEnded: ("reason",),
    BookSubscriptionEnded: ("reason",),
}


def split_out_of_range(
    records: Sequence[Record], is_believed: Callable[[Dated], bool], limit: DeadLetterLimit | None = None
) -> tuple[list[Record], tuple[Dated, ...]]:
    """Turn rows with unbelievable exchange times into dead letters; a market's book subscription ends before such a
    delta.

    Of the letters a sample is kept where there is a `limit`.
    """
    kept: list[Record] = []
    out_of_range: list[Dated] = []
    for record in records:
        if isinstance(record, _DATED) and not is_believed(record):
            out_of_range.append(record)
            detail = (
                f"exchange time {datetime_text(record.exchange_ts_us)} is outside the accepted bounds, or far from its"
                f" receipt ({datetime_text(record.received_at_ns // 1_000)}) and from the message before it"
            )
            kept.extend(sampled(as_dead_letter(record, OUT_OF_BOUNDS, detail), limit))
        else:
            kept.append(record)
    if out_of_range and limit is not None:
        kept.extend(limit.counts())
    return kept, tuple(out_of_range)


def as_dead_letter(
    record: Record, reason: str, detail: str, started: BookSubscriptionStarted | None = None
) -> list[Record]:
    """Put a record aside; what a delta or snapshot would have claimed is taken back.

    `started` is the book subscription that begins at the snapshot `record`. It may be committed before this or after,
    so what is left of it is a book subscription that ends before it begins and claims nothing.
    """
    stream_id: int = _held(getattr(record, "stream_id", NO_STREAM))
    seq: int = _held(getattr(record, "seq", 0))
    ticker: str | None = getattr(record, "ticker", None)
    letter = DeadLetter(
        received_at_ns=getattr(record, "received_at_ns", 0),
        reason=reason,
        detail=readable(detail, _LONGEST_DETAIL),
        payload=_bytes_of(record),
        stream_id=stream_id,
        seq=seq,
        channel=type(record).__name__,
        ticker=None if ticker is None else readable(ticker),
    )
    if isinstance(record, BookDelta) and is_name(record.ticker):
        return [letter, BookSubscriptionEnded(stream_id, record.ticker, seq - 1, reason)]
    if started is not None and is_name(started.ticker):
        return [letter, started, BookSubscriptionEnded(stream_id, started.ticker, seq - 1, reason)]
    return [letter]


def sampled(records: Sequence[Record], limit: DeadLetterLimit | None) -> list[Record]:
    """Leave out the dead letters that are to be counted only; the number that one took is taken all the same."""
    left: list[Record] = []
    for record in records:
        if (
            limit is None
            or not isinstance(record, DeadLetter)
            or limit.admits(record.received_at_ns, record.reason, len(record.payload))
        ):
            left.append(record)
        elif record.seq > 0 and record.stream_id != NO_STREAM:
            left.append(SequenceConsumed(record.stream_id, record.seq))
    return left


def bare(letter: DeadLetter) -> DeadLetter:
    """A dead letter that was refused as it was, without whatever may have been wrong with it.

    It has no place in its stream any more: if the number was what was refused, it is missing there.
    """
    place = f"stream {letter.stream_id}, number {letter.seq}: "
    return DeadLetter(
        letter.received_at_ns,
        readable(letter.reason),
        readable(place + letter.detail, _LONGEST_DETAIL),
        letter.payload[:_PAYLOAD_KEPT],
        NO_STREAM,
        0,
        None if letter.channel is None else readable(letter.channel),
        None if letter.ticker is None else readable(letter.ticker),
    )


def with_readable_remarks(record: Record) -> Record:
    """The same entry of the ledger with remarks that can be stored; the record itself where that changes nothing."""
    texts = {name: getattr(record, name) for name in _REMARKS.get(type(record), ())}
    changed = {name: readable(text) for name, text in texts.items() if readable(text) != text}
    return msgspec.structs.replace(record, **changed) if changed else record


def of_few_hours(records: Sequence[Record]) -> list[Sequence[Record]]:
    """Cut records, in their order, so that the rows of each part lie in few hours of their tables."""
    parts: list[Sequence[Record]] = []
    start = 0
    touched: set[tuple[type, int]] = set()
    for place, record in enumerate(records):
        moment_us = _partition_us(record)
        if moment_us is None:
            continue
        hour = type(record), moment_us // US_PER_HOUR
        if hour not in touched and len(touched) >= PARTITIONS_OF_A_BATCH:
            parts.append(records[start:place])
            start = place
            touched.clear()
        touched.add(hour)
    return [*parts, records[start:]]


def datetime_text(value_us: int) -> str:
    """A moment for people, also when it is beyond what datetime can hold."""
    try:
        return datetime_from_us(value_us).isoformat()
    except OverflowError:
        return f"{value_us} µs"


def _partition_us(record: Record) -> int | None:
    """The time by which a row is put into a partition; None for an entry of the ledger."""
    if isinstance(record, _DATED):
        return record.exchange_ts_us
    if isinstance(record, BookSnapshot):
        return record.snapshot_ts_us
    return record.received_at_ns // 1_000 if isinstance(record, LifecycleEvent | DeadLetter) else None


def _held(number: int) -> int:
    """A number that a column can hold; 0 stands for none."""
    return number if -INT64_MAX <= number <= INT64_MAX else 0


def _bytes_of(record: Record) -> bytes:
    try:
        return msgspec.json.encode(record)
    except (UnicodeError, OverflowError, ValueError):
        return repr(record).encode(errors="backslashreplace")
