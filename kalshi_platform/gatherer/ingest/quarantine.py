"""Turns records that must not, or cannot, be written into dead letters, and ends the claims on them. Pure.

No record may block those behind it: texts are made storable, numbers that no column can hold are left out, and the
letter's bytes contain what its columns cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from kalshi_platform.gatherer.ingest.dead_letter_limit import DeadLetterLimit
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
"""Most hours of its tables that a commit touches: each occupies the server's lock table until its end."""
Dated = BookDelta | Trade | TickerUpdate
_ROWS_WITH_EXCHANGE_TIME = (BookDelta, Trade, TickerUpdate)
_LONGEST_DETAIL = 1_000
_PAYLOAD_KEPT = 64 * 1024
# Texts of the ledger that describe and identify nothing: they may be written in an escaped form.
_FREE_TEXTS: dict[type, tuple[str, ...]] = {
    SessionOpened: ("connection", "url"),
    SessionClosed: ("reason",),
    StreamOpened: ("channel",),
    StreamEnded: ("reason",),
    BookSubscriptionEnded: ("reason",),
}


def split_out_of_range(
    records: Sequence[Record], is_accepted: Callable[[Dated], bool], limit: DeadLetterLimit | None = None
) -> tuple[list[Record], tuple[Dated, ...]]:
    """Turn rows whose exchange time is not accepted into dead letters; return the records, and those rows.

    A market's book subscription ends before such a delta. With a `limit` only a sample of the letters is kept.
    """
    kept: list[Record] = []
    out_of_range: list[Dated] = []
    for record in records:
        if isinstance(record, _ROWS_WITH_EXCHANGE_TIME) and not is_accepted(record):
            out_of_range.append(record)
            detail = (
                f"exchange time {datetime_text(record.exchange_ts_us)} is outside the accepted bounds, or far from its"
                f" receipt ({datetime_text(record.received_at_ns // 1_000)}) and from the message before it"
            )
            kept.extend(sampled(to_dead_letter(record, OUT_OF_BOUNDS, detail), limit))
        else:
            kept.append(record)
    if out_of_range and limit is not None:
        kept.extend(limit.counts())
    return kept, tuple(out_of_range)


def to_dead_letter(
    record: Record, reason: str, detail: str, started: BookSubscriptionStarted | None = None
) -> list[Record]:
    """Return the dead letter of a record, and entries that withdraw the claim of a delta or snapshot.

    `started` is the book subscription that starts at the snapshot `record`. It may be committed before this or after,
    so it becomes a book subscription that ends before it starts and claims nothing.
    """
    stream_id: int = _storable_number(getattr(record, "stream_id", NO_STREAM))
    seq: int = _storable_number(getattr(record, "seq", 0))
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
    """Leave out the dead letters that are only counted; the numbers that they consumed are still recorded."""
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
    """Return a refused dead letter without the values that may have caused the refusal.

    It has no place in its stream any more: if the number was the cause, it is missing there.
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


def with_readable_texts(record: Record) -> Record:
    """Return an entry of the ledger with texts that can be stored; the record itself where nothing changes."""
    texts = {name: getattr(record, name) for name in _FREE_TEXTS.get(type(record), ())}
    changed = {name: readable(text) for name, text in texts.items() if readable(text) != text}
    return msgspec.structs.replace(record, **changed) if changed else record


def split_by_hours(records: Sequence[Record]) -> list[Sequence[Record]]:
    """Split records, in their order, so that the rows of each part lie in few hours of their tables."""
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
    """Return a time as text, also when it is beyond the range of datetime."""
    try:
        return datetime_from_us(value_us).isoformat()
    except OverflowError:
        return f"{value_us} µs"


def _partition_us(record: Record) -> int | None:
    """Return the time that decides a row's partition; None for an entry of the ledger."""
    if isinstance(record, _ROWS_WITH_EXCHANGE_TIME):
        return record.exchange_ts_us
    if isinstance(record, BookSnapshot):
        return record.snapshot_ts_us
    return record.received_at_ns // 1_000 if isinstance(record, LifecycleEvent | DeadLetter) else None


def _storable_number(number: int) -> int:
    """Return the number, or 0 where no column can hold it."""
    return number if -INT64_MAX <= number <= INT64_MAX else 0


def _bytes_of(record: Record) -> bytes:
    try:
        return msgspec.json.encode(record)
    except (UnicodeError, OverflowError, ValueError):
        return repr(record).encode(errors="backslashreplace")
