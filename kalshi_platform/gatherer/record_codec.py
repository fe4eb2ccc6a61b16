"""Records ↔ bytes, for the spool: exact, typed, compressed."""

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
    r.MembershipStarted,
    r.MembershipEnded,
    r.SequenceGap,
    r.SequenceConsumed,
)
_CODES = {kind: code for code, kind in enumerate(_TYPES)}
_encoder = msgspec.msgpack.Encoder()
_outer = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]])
_decoders = tuple(msgspec.msgpack.Decoder(kind) for kind in _TYPES)


def encode_records(records: Sequence[Record]) -> bytes:
    """Return the block of `records`."""
    return zlib.compress(_encoder.encode([(_CODES[type(record)], record) for record in records]), 1)


def decode_records(block: bytes) -> list[Record]:
    """Return the records of a block. Raises ValueError when the bytes are none."""
    try:
        return [_decoders[code].decode(raw) for code, raw in _outer.decode(zlib.decompress(block))]
    except (zlib.error, msgspec.MsgspecError, IndexError) as error:
        raise ValueError(f"not a block of records: {error}") from error
