"""Reads the head of a WebSocket frame: what decides where it belongs, and none of its content. Pure.

Content is parsed later and elsewhere (`exchange.parse.messages`); a frame whose content cannot be parsed has a head all
the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.messages import decode, type_of
from kalshi_platform.exchange.wire.ws import Seq, Sid
from kalshi_platform.market.names import is_name


class Head(msgspec.Struct, frozen=True, gc=False):
    """Holds the fields beside `msg`; None where the frame has none."""

    type: str
    sid: Sid | None = None
    seq: Seq | None = None
    id: int | None = None


class _Named(msgspec.Struct, frozen=True, gc=False):
    market_ticker: str = ""


class _Ticker(msgspec.Struct, frozen=True, gc=False):
    msg: _Named


decode_head: Callable[[bytes], Head] = msgspec.json.Decoder(Head).decode
"""Reads the head of a frame that is whole; raises msgspec.MsgspecError."""
_decode_named: Callable[[bytes], _Ticker] = msgspec.json.Decoder(_Ticker).decode


def read_head(payload: bytes) -> Head:
    """Read the head of a frame, also of one of which only describing texts or numbers are broken.

    Raises UnparsableMessage for bytes that are no JSON object, and where a field of the head is out of its range.
    """
    try:
        return decode_head(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        wire: Any = decode(payload)
    return Head(type_of(wire), wire.sid, wire.seq, wire.id)


def read_ticker(payload: bytes) -> str | None:
    """Return the market that a frame of known shape names; None if it names none, or none that can be stored."""
    try:
        ticker = _decode_named(payload).msg.market_ticker
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        try:
            wire: Any = decode(payload)
        except UnparsableMessage:
            return None
        ticker = wire.msg.market_ticker
    return ticker if is_name(ticker) else None
