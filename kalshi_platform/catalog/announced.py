"""Merges what lifecycle messages announce of a market or an event into what REST answers. Pure.

The announcement comes first and REST follows, some moments later or, for a provisional market that is deleted, never.
So an answer of REST is compared with what was announced, and what REST no longer contains is taken from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.market.catalog import EventInfo, MarketInfo
from kalshi_platform.market.times import US_PER_S, datetime_from_us, us_from_number
from kalshi_platform.market.units import money_e6

Message = Mapping[str, Any]
ENDS = frozenset({"determined", "settled"})
_DETERMINED = frozenset({"determined", "disputed", "amended", "finalized"})
_OVER = _DETERMINED | {"closed", "vanished"}
_METADATA = ("strike_type", "floor_strike", "cap_strike", "custom_strike", "yes_sub_title")
_ASPECTS = {
    "activated": "status",
    "deactivated": "status",
    "determined": "status",
    "settled": "status",
    "close_date_updated": "close",
    "price_level_structure_updated": "grid",
    "metadata_updated": "metadata",
    "created": "created",
}


def aspect_of(event_type: str) -> str:
    """Return the aspect that an announcement concerns; of two about one aspect, the later one counts."""
    return _ASPECTS.get(event_type, event_type)


def agrees(info: MarketInfo, event_type: str, message: Message) -> bool:
    """Return whether an answer of REST is as new as an announcement; unknown announcements contradict nothing."""
    if event_type == "activated":
        return info.status == "active"
    if event_type == "deactivated":
        return info.status == "inactive" or info.status in _OVER
    if event_type == "determined":
        value = _money(message)
        return (
            info.status in _DETERMINED
            and message.get("result") in (None, info.result)
            and (value is None or info.settlement_value_e6 in (None, value))
        )
    if event_type == "settled":
        return info.status == "finalized"
    if event_type == "close_date_updated":
        close_us = _moment(message, "close_ts")
        return close_us is None or (
            info.close_time_us is not None and info.close_time_us // US_PER_S * US_PER_S == close_us
        )
    if event_type == "price_level_structure_updated":
        return message.get("price_level_structure") in (None, info.price_level_structure)
    if event_type == "metadata_updated":
        known = msgspec.json.decode(info.payload)
        return all(known.get(name) == message[name] for name in _METADATA if name in message)
    return True


def event_agrees(info: EventInfo, message: Message) -> bool:
    """Return whether an event as REST has it carries the fees that were announced."""
    known = msgspec.json.decode(info.payload)
    return all(
        known.get(name) == message[name] for name in ("fee_type_override", "fee_multiplier_override") if name in message
    )


def applied(info: MarketInfo, event_type: str, message: Message) -> MarketInfo:
    """Return a market as it is after an announcement."""
    columns: dict[str, Any] = {}
    payload: dict[str, Any] = {}
    if event_type == "determined":
        columns = {"status": "determined", "result": _text(message, "result")}
        payload = {"status": "determined", "result": _text(message, "result") or ""}
        value = _money(message)
        if value is not None:
            columns["settlement_value_e6"] = value
            payload["settlement_value_dollars"] = message["settlement_value"]
    elif event_type == "settled":
        columns = {"status": "finalized", "settlement_ts_us": _moment(message, "settled_ts")}
        payload = {"status": "finalized", "settlement_ts": _rfc3339(columns["settlement_ts_us"])}
    elif event_type == "close_date_updated":
        close_us = _moment(message, "close_ts")
        if close_us is not None:
            columns, payload = {"close_time_us": close_us}, {"close_time": _rfc3339(close_us)}
    if not columns:
        return info
    merged = {**msgspec.json.decode(info.payload or b"{}"), **payload}
    return msgspec.structs.replace(info, **columns, payload=_json(merged))


def created(message: Message) -> MarketInfo | None:
    """Return a new market as far as its announcement describes it; None when even its names are missing.

    Its status is `initialized`: Kalshi announces no opening.
    """
    ticker, details = _text(message, "market_ticker"), message.get("additional_metadata")
    details = details if isinstance(details, dict) else {}
    event_ticker = _text(details, "event_ticker")
    if ticker is None or event_ticker is None:
        return None
    index = message.get("exchange_index")
    ranges = message.get("price_ranges")
    return MarketInfo(
        ticker=ticker,
        event_ticker=event_ticker,
        series_ticker=None,
        market_type=None,
        status="initialized",
        title=_text(details, "title"),
        open_time_us=_moment(message, "open_ts"),
        close_time_us=_moment(message, "close_ts"),
        expected_expiration_us=_moment(details, "expected_expiration_ts"),
        created_us=None,
        updated_us=None,
        result=None,
        settlement_value_e6=None,
        settlement_ts_us=None,
        price_level_structure=_text(message, "price_level_structure"),
        price_ranges=_json(ranges) if isinstance(ranges, list) else None,
        is_provisional=False,
        mve_collection_ticker=None,
        exchange_index=index if isinstance(index, int) and 0 <= index < 2**31 else 0,
        can_close_early=details.get("can_close_early") if isinstance(details.get("can_close_early"), bool) else None,
        payload=_json({"ticker": ticker, "event_ticker": event_ticker, "status": "initialized", "announced": message}),
    )


def _text(message: Message, name: str) -> str | None:
    value = message.get(name)
    return value if isinstance(value, str) and value else None


def _moment(message: Message, name: str) -> int | None:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    try:
        return us_from_number(value)
    except UnparsableMessage:
        return None


def _money(message: Message) -> int | None:
    value = message.get("settlement_value")
    try:
        return money_e6(value) if isinstance(value, str) and value else None
    except UnparsableMessage:
        return None


def _rfc3339(value_us: int | None) -> str | None:
    return None if value_us is None else datetime_from_us(value_us).isoformat().replace("+00:00", "Z")


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
