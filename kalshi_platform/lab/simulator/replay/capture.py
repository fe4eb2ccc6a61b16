"""Reads a recorded capture: JSON lines `{"received_at_ns": int, "frame": {…}}`."""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lab.simulator.engine.book import SIDES
from kalshi_platform.lab.simulator.engine.payloads import encode
from kalshi_platform.lab.simulator.engine.subscriptions import BOOK
from kalshi_platform.lab.simulator.replay.recorded import CHANNELS, MARKET_KINDS, Json, Recorded, StartState

_log = logging.getLogger(__name__)

ANSWERS = frozenset({"subscribed", "unsubscribed", "ok", "error"})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_capture(path: Path) -> list[Recorded]:
    """Read a capture without its acks and errors; raises `ConfigurationError` naming the first line that is none."""
    if not path.is_file():
        raise ConfigurationError([f"capture {path} does not exist"])
    found = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                frame, received_at_ns = record["frame"], int(record["received_at_ns"])
                kind = str(frame.get("type", ""))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ConfigurationError([f'{path}:{number} is no {{"received_at_ns", "frame"}} object']) from None
            if kind in ANSWERS:
                continue
            found.append(recorded_frame(kind, frame.get("msg"), received_at_ns))
    if not found:
        raise ConfigurationError([f"capture {path} holds no data frames"])
    return found


def recorded_frame(kind: str, content: object, received_at_ns: int) -> Recorded:
    """Return one frame made ready; `content` is its `msg`."""
    msg: Json = content if isinstance(content, dict) else {}
    ticker = sys.intern(str(msg.get("market_ticker") or msg.get("event_ticker") or ""))
    change = None
    if kind == "orderbook_delta":
        try:
            change = recorded_delta(msg)
        except (KeyError, ValueError, ArithmeticError) as problem:
            # The recording is served as it is; what an odd delta does to a client is the client's to find.
            _log.warning('recorded_delta_not_understood ticker=%s problem="%r"', ticker, problem)
    us = recorded_time_us(msg, received_at_ns)
    # A type from the future is passed on to whoever reads books.
    channel = CHANNELS.get(kind, BOOK)
    return Recorded(received_at_ns, kind, channel, ticker, us, encode(content), change, {} if change else msg)


def recorded_levels(msg: Json, side: int) -> dict[int, int]:
    """Return one side of a recorded snapshot as {price_e4: size_e2}, in any of the three shapes that were ever sent."""
    name = SIDES[side]
    for key, price_scale in ((f"{name}_dollars_fp", 10_000), (f"{name}_dollars", 10_000), (name, 100)):
        if msg.get(key):
            return {scaled(price, price_scale): scaled(size, 100) for price, size in msg[key]}
    return {}


def recorded_delta(msg: Json) -> tuple[int, int, int]:
    """Return (side, price_e4, delta_e2) of a recorded delta, current or legacy shape."""
    price = scaled(msg["price_dollars"], 10_000) if "price_dollars" in msg else scaled(msg["price"], 100)
    change = scaled(msg["delta_fp"] if "delta_fp" in msg else msg["delta"], 100)
    return SIDES.index(msg["side"]), price, change


def recorded_time_us(msg: Json, received_at_ns: int) -> int:
    """Return the recorded exchange time in µs; the receive time where the message has none."""
    for key in ("time", "ts", "ts_ms"):
        value = msg.get(key)
        if isinstance(value, str) and value:
            try:
                return (datetime.fromisoformat(value) - EPOCH) // timedelta(microseconds=1)
            except (ValueError, TypeError):
                continue
        if isinstance(value, int) and (key == "ts_ms" or "ts_ms" not in msg):
            return value * (1_000 if value > 10**11 else 1_000_000)
    return received_at_ns // 1_000


def scaled(value: object, scale: int) -> int:
    """Return a decimal, a text mostly, in 1/scale."""
    return int(Decimal(str(value)) * scale)


class CaptureSource:
    """A capture in memory. Raises ConfigurationError."""

    def __init__(self, path: Path) -> None:
        self._frames = read_capture(path)
        self.channels = frozenset(frame.channel for frame in self._frames)

    def start(self) -> StartState:
        """Return every market of the capture, and as its book the first snapshot of it."""
        ids: dict[str, str] = {}
        books: dict[str, Json] = {}
        for frame in self._frames:
            if frame.kind in MARKET_KINDS and frame.ticker and frame.ticker not in ids:
                market_id = json.loads(frame.body).get("market_id")
                ids[frame.ticker] = str(market_id or uuid.uuid5(uuid.NAMESPACE_OID, frame.ticker))
            if frame.kind == "orderbook_snapshot":
                books.setdefault(frame.ticker, frame.msg)
        first_us = min(frame.received_at_ns for frame in self._frames) // 1_000
        return StartState(ids, first_us, books, frozenset(books))

    def messages(self) -> Iterator[Recorded]:
        """Yield the frames in their order."""
        yield from self._frames

    def describe(self) -> Json:
        """Return how many frames there are."""
        return {"frames": len(self._frames)}
