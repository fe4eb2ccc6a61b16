"""Encodes records as bytes for the spool, and decodes them: exact, typed, compressed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from kalshi_platform.market import records as r
from kalshi_platform.market.records import Record

# The position is the code on disk: append only.
_TYPES: tuple[type[Any], ...] = (
    r.BookDelta,
    r.BookSnapshot,
    r.Trade,
    r.TickerUpdate,
    r.LifecycleEvent,
    r.DeadLetter,
    r.SessionOpened,
    r.SessionClosed,
    r.StreamOpened,
    r.StreamEnded,
    r.BookSubscriptionStarted,
    r.BookSubscriptionEnded,
    r.SequenceGap,
    r.SequenceConsumed,
    r.DeadLettersCounted,
    r.UnknownFrame,
)
_CODES = {kind: code for code, kind in enumerate(_TYPES)}
_encoder = msgspec.msgpack.Encoder()
# A record with a number beyond 64 bits, which no column can hold either, is encoded as JSON: the database must get it
# and refuse it, so that it is quarantined.
_AS_JSON = 100
_outer = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]])
_decoders = tuple(msgspec.msgpack.Decoder(kind) for kind in _TYPES)


def encode_records(records: Sequence[Record]) -> bytes:
    """Return `records` as one compressed block."""
    try:
        encoded = _encoder.encode([(_CODES[type(record)], record) for record in records])
    except OverflowError:
        encoded = _encoder.encode([_any_size(record) for record in records])
    return zlib.compress(encoded, 1)


def decode_records(block: bytes) -> list[Record]:
    """Return the records of a block. Raises ValueError when the bytes are not one."""
    try:
        return [_decoded(code, raw) for code, raw in _outer.decode(zlib.decompress(block))]
    except (zlib.error, msgspec.MsgspecError, IndexError) as error:
        raise ValueError(f"not a block of records: {error}") from error


def _any_size(record: Record) -> tuple[int, object]:
    code = _CODES[type(record)]
    try:
        return code, msgspec.Raw(_encoder.encode(record))
    except OverflowError:
        return code + _AS_JSON, msgspec.json.encode(record)


def _decoded(code: int, raw: msgspec.Raw) -> Record:
    if code < _AS_JSON:
        return _decoders[code].decode(raw)  # type: ignore[no-any-return]
    return msgspec.json.decode(msgspec.msgpack.decode(raw, type=bytes), type=_TYPES[code - _AS_JSON])  # type: ignore[no-any-return]
