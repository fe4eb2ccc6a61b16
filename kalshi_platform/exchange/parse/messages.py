"""Parses WebSocket frames into typed messages in the platform's units. Pure; `exchange.parse.rest` parses REST objects.

Both shapes that Kalshi has sent (decimal strings; before March 2026 integer cents) give the same content. What fits
neither raises UnparsableMessage with one of these reasons: `json`, `shape`, `missing_field`, `missing_type`,
`unknown_type`, `name`, `number`, `range`, `side`, `levels`, `time`, `no_exchange_time`. Source: docs.kalshi.com,
asyncapi.yaml (read 2026-11-22).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import msgspec

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.legacy_fields import (
    canonical_json,
    ladder,
    name_of,
    price_of,
    required,
    side_of,
    size_of,
)
from kalshi_platform.exchange.parse.lenient_json import decode_json
from kalshi_platform.exchange.wire import ws
from kalshi_platform.market.identity import fingerprint
from kalshi_platform.market.names import LONGEST_NAME, readable
from kalshi_platform.market.records import Levels, Side
from kalshi_platform.market.times import floor_ms, us_from_number, us_from_rfc3339
from kalshi_platform.market.units import INT64_MAX, count_e2, delta_e2, e2_from_whole, price_e4, price_e4_from_cents
from kalshi_platform.monitoring.event_log import event_logger

__all__ = [
    "Body",
    "DeltaBody",
    "ErrorBody",
    "Frame",
    "LifecycleBody",
    "ListedBody",
    "PartialFrame",
    "SnapshotBody",
    "SubscribedBody",
    "TickerBody",
    "TradeBody",
    "decode",
    "delta_values",
    "frame_of",
    "parse_frame",
    "parse_partial",
    "type_of",
]


_log = event_logger(__name__)


class DeltaBody(NamedTuple):
    """Carries a signed change of one level of one market."""

    ticker: str
    side: Side
    price_e4: int
    delta_e2: int
    exchange_ts_us: int


class SnapshotBody(NamedTuple):
    """Carries a whole book; each side ascending by price, without empty levels."""

    ticker: str
    yes: Levels
    no: Levels


class TradeBody(NamedTuple):
    """Carries one trade; `exchange_ts_us` is floored to the millisecond."""

    trade_id: str
    ticker: str
    exchange_ts_us: int
    yes_price_e4: int
    no_price_e4: int
    count_e2: int
    taker_side: Side | None
    is_block_trade: bool


class TickerBody(NamedTuple):
    """Carries best prices and totals; None where Kalshi sent nothing or an empty string."""

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


class LifecycleBody(NamedTuple):
    """Carries a change of a market or an event; `content` is the message as canonical JSON."""

    ticker: str
    event_type: str
    exchange_ts_us: int | None
    content: str
    fingerprint: int


class SubscribedBody(NamedTuple):
    """Reports that a channel was opened under `sid`."""

    channel: str
    sid: int


class ListedBody(NamedTuple):
    """Lists the open subscriptions of a connection that the exchange serves: (channel, sid)."""

    subscriptions: tuple[tuple[str, int], ...]


class ErrorBody(NamedTuple):
    """Reports that the exchange refused a command or ended a subscription."""

    code: int
    message: str
    tickers: tuple[str, ...]


Body: TypeAlias = (
    DeltaBody | SnapshotBody | TradeBody | TickerBody | LifecycleBody | SubscribedBody | ListedBody | ErrorBody | None
)


class Frame(NamedTuple):
    """Carries one parsed frame; `sid`, `seq` and `id` are None where the frame has none (an `id` of 0 means none)."""

    type: str
    sid: int | None
    seq: int | None
    id: int | None
    body: Body


class PartialFrame(NamedTuple):
    """Carries the fields that could be read of an unparsable frame; None for the others."""

    type: str | None
    sid: int | None
    seq: int | None
    ticker: str | None


def parse_frame(payload: bytes | str) -> Frame:
    """Parse one frame. Raises UnparsableMessage for what is not a frame of a known shape."""
    return frame_of(decode(payload))


def decode(payload: bytes | str) -> ws.AnyFrame:
    """Decode a frame of a known shape, without converting its content: the first half of `parse_frame`.

    Raises UnparsableMessage.
    """
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        repaired = _repaired(payload)
        if repaired is not None:
            return repaired
        raise _explain(payload, error) from error


def _repaired(payload: bytes | str) -> ws.AnyFrame | None:
    """Return a frame of which only describing texts or numbers were broken; None where its names or more are."""
    try:
        value, changed = decode_json(payload)
        wire = _decode(msgspec.json.encode(value)) if changed else None
    except (msgspec.MsgspecError, RecursionError, UnicodeError, UnparsableMessage):
        return None
    if wire is None:
        return None
    message = value.get("msg")
    message = message if isinstance(message, dict) else {}
    if any("\ufffd" in str(message.get(name, "")) for name in _NAMES):
        return None
    _log.warning("frame_repaired", frame_type=value["type"], repaired_values=changed)
    return wire


def type_of(wire: ws.AnyFrame) -> str:
    """Return the type of a decoded frame by the name that its channel is found with."""
    return _CONVERTERS[type(wire)][0]


def frame_of(wire: ws.AnyFrame) -> Frame:
    """Convert the content of a decoded frame: the second half of `parse_frame`. Raises UnparsableMessage."""
    name, convert = _CONVERTERS[type(wire)]
    return Frame(name, wire.sid, wire.seq, wire.id or None, convert(wire))


def parse_partial(payload: bytes | str) -> PartialFrame:
    """Read type, sid, seq and ticker of a frame that `parse_frame` refused; never raises."""
    try:
        wire = _decode_remains(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return _salvage_text(payload)
    message = wire.msg if isinstance(wire.msg, dict) else {}
    ticker = message.get("market_ticker")
    return PartialFrame(
        wire.type if isinstance(wire.type, str) else None,
        _number(wire.sid, 0, _SID_MAX),
        _number(wire.seq, 1, INT64_MAX),
        ticker if isinstance(ticker, str) and ticker else None,
    )


_decode: Callable[[bytes | str], ws.AnyFrame] = msgspec.json.Decoder(ws.AnyFrame).decode
_decode_listed: Callable[[msgspec.Raw], list[ws.Listed]] = msgspec.json.Decoder(list[ws.Listed]).decode
_decode_remains: Callable[[bytes | str], ws.PartialFrame] = msgspec.json.Decoder(ws.PartialFrame).decode


def delta_values(wire: ws.DeltaFrame) -> tuple[str, Side, int, int, int]:
    """Return the content of a delta as a plain tuple, in the order of DeltaBody. Raises UnparsableMessage."""
    msg = wire.msg
    ticker, side = msg.market_ticker, msg.side
    # `name_of` without its two calls: nearly every frame is a delta.
    if not 0 < len(ticker) <= LONGEST_NAME or not ticker.isprintable():
        name_of(ticker, "market_ticker")
    if side not in ("yes", "no"):
        raise UnparsableMessage("side", f"{side[:40]!r} is neither yes nor no")
    dollars, contracts, ts = msg.price_dollars, msg.delta_fp, msg.ts
    price = price_e4(dollars) if dollars is not None else required(price_of(None, msg.price), "price")
    if contracts is not None:
        change = delta_e2(contracts)
    elif msg.delta is not None:
        change = e2_from_whole(msg.delta)
    else:
        raise UnparsableMessage("missing_field", "neither shape of delta is there")
    time = us_from_rfc3339(ts) if type(ts) is str and ts else _time(msg.ts_ms, None, ts)
    return ticker, side, price, change, time  # type: ignore[return-value]


def _delta(wire: ws.DeltaFrame) -> DeltaBody:
    values = delta_values(wire)
    if wire.seq is None or wire.sid is None:
        raise UnparsableMessage("missing_field", "a book frame without sid or seq")
    return DeltaBody(*values)


def _snapshot(wire: ws.SnapshotFrame) -> SnapshotBody:
    msg = wire.msg
    if wire.seq is None or wire.sid is None:
        raise UnparsableMessage("missing_field", "a book frame without sid or seq")
    return SnapshotBody(
        name_of(msg.market_ticker, "market_ticker"),
        _levels(msg.yes_dollars_fp, msg.yes_dollars, msg.yes),
        _levels(msg.no_dollars_fp, msg.no_dollars, msg.no),
    )


def _levels(
    fixed: list[tuple[str, str]] | None, dollars: list[tuple[str, int]] | None, cents: list[tuple[int, int]] | None
) -> Levels:
    if fixed is not None:
        return ladder([(price_e4(price), count_e2(count)) for price, count in fixed])
    if dollars is not None:
        return ladder([(price_e4(price), required(size_of(None, count), "size")) for price, count in dollars])
    if cents is not None:
        return ladder([(price_e4_from_cents(price), required(size_of(None, count), "size")) for price, count in cents])
    return ()


def _trade(wire: ws.TradeFrame) -> TradeBody:
    msg = wire.msg
    yes = required(price_of(msg.yes_price_dollars, msg.yes_price), "yes_price")
    no = price_of(msg.no_price_dollars, msg.no_price)
    return TradeBody(
        name_of(msg.trade_id, "trade_id"),
        name_of(msg.market_ticker, "market_ticker"),
        floor_ms(_time(msg.ts_ms, None, msg.ts)),
        yes,
        10_000 - yes if no is None else no,
        required(size_of(msg.count_fp, msg.count), "count"),
        side_of(msg.taker_outcome_side, msg.taker_side),
        bool(msg.is_block_trade),
    )


def _ticker(wire: ws.TickerFrame) -> TickerBody:
    msg = wire.msg
    ticker = name_of(msg.market_ticker, "market_ticker")
    content = (
        price_of(msg.price_dollars, msg.price),
        price_of(msg.yes_bid_dollars, msg.yes_bid),
        price_of(msg.yes_ask_dollars, msg.yes_ask),
        size_of(msg.yes_bid_size_fp, None),
        size_of(msg.yes_ask_size_fp, None),
        size_of(msg.last_trade_size_fp, None),
        size_of(msg.volume_fp, msg.volume),
        size_of(msg.open_interest_fp, msg.open_interest),
        msg.dollar_volume,
        msg.dollar_open_interest,
    )
    time = _time(msg.ts_ms, msg.time, msg.ts)
    return TickerBody(ticker, time, fingerprint(ticker, *content), *content)


def _time(ts_ms: int | None, text: str | None, ts: ws.Time) -> int:
    """Return the exchange time in µs: `ts_ms`, else RFC 3339 text, else `ts` as text or number."""
    if ts_ms:
        return us_from_number(ts_ms)
    if text:
        return us_from_rfc3339(text)
    if isinstance(ts, str) and ts:
        return us_from_rfc3339(ts)
    if isinstance(ts, int) and ts:
        return us_from_number(ts)
    raise UnparsableMessage("no_exchange_time", "neither ts nor ts_ms is there")


_OWN_TIMES = ("determination_ts", "settled_ts")
_LEGACY_STATUS = {
    "active": "activated",
    "open": "activated",
    "inactive": "deactivated",
    "paused": "deactivated",
    "determined": "determined",
    "settled": "settled",
    "finalized": "settled",
}


def _lifecycle(wire: Any) -> LifecycleBody:
    message: dict[str, Any] = wire.msg
    event_type = _text_field(message, "event_type")
    if event_type == "status_change":
        status = message.get("status", message.get("new_status"))
        event_type = _LEGACY_STATUS.get(str(status), event_type)
    return _life(_text_field(message, "market_ticker"), event_type, message)


def _event_created(wire: ws.EventLifecycleFrame) -> LifecycleBody:
    return _life(_text_field(wire.msg, "event_ticker"), "event_created", wire.msg)


def _event_fee(wire: ws.EventFeeFrame) -> LifecycleBody:
    return _life(_text_field(wire.msg, "event_ticker"), "event_fee_update", wire.msg)


def _life(ticker: str, event_type: str, message: dict[str, Any]) -> LifecycleBody:
    time = None
    for field in _OWN_TIMES:
        value = message.get(field)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            time = us_from_number(value)
            break
    content = canonical_json(message)
    return LifecycleBody(ticker, event_type, time, content, fingerprint(event_type, content))


def _text_field(message: dict[str, Any], field: str) -> str:
    value = message.get(field)
    if not isinstance(value, str) or not value:
        raise UnparsableMessage("missing_field", f"{field} is missing or no text")
    return name_of(value, field)


def _subscribed(wire: ws.SubscribedFrame) -> SubscribedBody:
    return SubscribedBody(name_of(wire.msg.channel, "channel"), wire.msg.sid)


def _ok(wire: ws.OkFrame) -> ListedBody | None:
    if bytes(wire.msg)[:1] != b"[":
        return None
    try:
        listed = _decode_listed(wire.msg)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise UnparsableMessage("shape", f"ok: {str(error)[:200]}") from error
    return ListedBody(tuple((each.channel, each.sid) for each in listed))


def _error(wire: ws.ErrorFrame) -> ErrorBody:
    msg = wire.msg
    tickers = tuple(msg.market_tickers or ()) or ((msg.market_ticker,) if msg.market_ticker else ())
    return ErrorBody(msg.code, msg.msg, tickers)


def _nothing(_wire: object) -> None:
    return None


_CONVERTERS: dict[type, tuple[str, Callable[[Any], Body]]] = {
    ws.DeltaFrame: ("orderbook_delta", _delta),
    ws.SnapshotFrame: ("orderbook_snapshot", _snapshot),
    ws.TradeFrame: ("trade", _trade),
    ws.TickerFrame: ("ticker", _ticker),
    ws.LifecycleFrame: ("market_lifecycle_v2", _lifecycle),
    ws.LegacyLifecycleFrame: ("market_lifecycle_v2", _lifecycle),
    ws.ComboLifecycleFrame: ("multivariate_market_lifecycle", _lifecycle),
    ws.EventLifecycleFrame: ("event_lifecycle", _event_created),
    ws.EventFeeFrame: ("event_fee_update", _event_fee),
    ws.SubscribedFrame: ("subscribed", _subscribed),
    ws.OkFrame: ("ok", _ok),
    ws.UnsubscribedFrame: ("unsubscribed", _nothing),
    ws.ErrorFrame: ("error", _error),
}
_NAMES = ("market_ticker", "event_ticker", "trade_id", "event_type")
_KNOWN_TYPES = frozenset(name for name, _ in _CONVERTERS.values()) | {"market_lifecycle"}


def _explain(payload: bytes | str, error: Exception) -> UnparsableMessage:
    """Return the error with a reason that does not depend on the decoder's wording."""
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as broken:
        return UnparsableMessage("json", str(broken)[:200])
    if not isinstance(value, dict):
        return UnparsableMessage("shape", f"a frame is an object, not {type(value).__name__}")
    kind = value.get("type")
    if not isinstance(kind, str):
        return UnparsableMessage("missing_type", "a frame without type")
    if kind not in _KNOWN_TYPES:
        return UnparsableMessage("unknown_type", readable(kind, 80))
    detail = str(error)[:200]
    return UnparsableMessage("missing_field" if "missing required field" in detail else "shape", f"{kind}: {detail}")


def _number(value: object, low: int, high: int) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    return None


_SID_MAX = 2**31 - 1
_TYPE = re.compile(rb'"type"\s*:\s*"([A-Za-z0-9_]{1,64})"')
_SID = re.compile(rb'"sid"\s*:\s*([0-9]{1,18})\s*[,}]')
_SEQ = re.compile(rb'"seq"\s*:\s*([0-9]{1,18})\s*[,}]')
_TICKER = re.compile(rb'"market_ticker"\s*:\s*"([^"\\]{1,200})"')


def _salvage_text(payload: bytes | str) -> PartialFrame:
    """Read what stands before `msg` in broken JSON, and a ticker where it is whole."""
    raw = payload.encode(errors="replace") if isinstance(payload, str) else payload
    head, _, rest = raw.partition(b'"msg"')
    kind, sid, seq, ticker = _TYPE.search(head), _SID.search(head), _SEQ.search(head), _TICKER.search(rest)
    return PartialFrame(
        kind.group(1).decode() if kind else None,
        _number(int(sid.group(1)), 0, _SID_MAX) if sid else None,
        _number(int(seq.group(1)), 1, INT64_MAX) if seq else None,
        ticker.group(1).decode(errors="replace") if ticker else None,
    )
