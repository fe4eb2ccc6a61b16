"""Parsed frames and buried ones as the records that are written. Pure."""

from __future__ import annotations

from kalshi_platform.exchange.parse.messages import Body, LifecycleBody, Remains, TickerBody, TradeBody
from kalshi_platform.exchange.protocol.sequence import Stream
from kalshi_platform.market.names import readable
from kalshi_platform.market.records import NO_STREAM, DeadLetter, LifecycleEvent, Record, TickerUpdate, Trade


def row_of(body: Body, stream: Stream, seq: int, received_at_ns: int) -> Record | None:
    """The row of a frame that concerns no book; None for a body that gives none."""
    if type(body) is TradeBody:
        return Trade(*body, received_at_ns, "ws", None, stream.id, seq)
    if type(body) is TickerBody:
        return TickerUpdate(*body, received_at_ns, stream.id, seq)
    if type(body) is LifecycleBody:
        return LifecycleEvent(*body, received_at_ns, stream.id, seq)
    return None


def dead_letter(
    payload: bytes | str, received_at_ns: int, reason: str, detail: str, remains: Remains | None, stream: Stream | None
) -> DeadLetter:
    """The bytes as they came, with what could still be read of them."""
    return DeadLetter(
        received_at_ns,
        reason,
        detail,
        payload.encode(errors="surrogatepass") if isinstance(payload, str) else bytes(payload),
        stream.id if stream else NO_STREAM,
        (remains.seq or 0) if remains else 0,
        stream.channel if stream else None,
        readable(remains.ticker) if remains and remains.ticker else None,
    )
