"""Detects whether what describes an object has changed. Pure.

Prices, sizes, volumes, open interest and the time of the last update change all day and describe nothing: they are left
out, so that trading makes no history. Status, result, settlement and times are part of it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from kalshi_platform.market.catalog import EventInfo, MarketInfo, SeriesInfo
from kalshi_platform.market.identity import fingerprint

VANISHED = "vanished"
_VOLATILE_STARTS = (
    "yes_bid",
    "yes_ask",
    "no_bid",
    "no_ask",
    "last_price",
    "previous_",
    "volume",
    "open_interest",
    "liquidity",
    "dollar_",
)
_VOLATILE_NAMES = frozenset({"updated_time", "last_updated_ts"})


def market_fingerprint(info: MarketInfo) -> int:
    """A signed 64-bit hash of what describes the market."""
    # The status in its present-day word: an older answer's "open" is the same as "active".
    return _hash(info.payload, status=info.status)


def event_fingerprint(info: EventInfo) -> int:
    """A signed 64-bit hash of what describes the event."""
    return _hash(info.payload)


def series_fingerprint(info: SeriesInfo) -> int:
    """A signed 64-bit hash of what describes the series."""
    return _hash(info.payload)


def vanished_fingerprint(ticker: str) -> int:
    """The hash of a market that the exchange has deleted: none of its earlier descriptions has it."""
    return fingerprint(ticker, VANISHED)


@cache
def is_volatile(field: str) -> bool:
    """Whether a field of an exchange object changes without the object being another one."""
    return field in _VOLATILE_NAMES or field.startswith(_VOLATILE_STARTS)


def _hash(payload: str, **overrides: Any) -> int:
    content = msgspec.json.decode(payload)
    kept = {name: value for name, value in content.items() if not is_volatile(name)}
    return fingerprint(msgspec.json.encode(kept | overrides, order="sorted").decode())
