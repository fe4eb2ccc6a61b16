"""Computes fingerprints that change when the description of an object changes. Pure.

Prices, sizes, volumes, open interest and the time of the last update change all day without describing the object: they
are left out, so that trading makes no history. Status, result, settlement and times are part of the fingerprint.
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
    """Return a signed 64-bit hash of the market's description."""
    # The status in its present-day word: an older answer's "open" is the same as "active".
    return _hash(info.payload, status=info.status)


def event_fingerprint(info: EventInfo) -> int:
    """Return a signed 64-bit hash of the event's description."""
    return _hash(info.payload)


def series_fingerprint(info: SeriesInfo) -> int:
    """Return a signed 64-bit hash of the series' description."""
    return _hash(info.payload)


def vanished_fingerprint(ticker: str) -> int:
    """Return the hash of a market that the exchange has deleted; none of its earlier descriptions has it."""
    return fingerprint(ticker, VANISHED)


@cache
def is_volatile(field: str) -> bool:
    """Return whether a field of an exchange object changes without describing it."""
    return field in _VOLATILE_NAMES or field.startswith(_VOLATILE_STARTS)


def _hash(payload: str, **overrides: Any) -> int:
    content = msgspec.json.decode(payload)
    kept = {name: value for name, value in content.items() if not is_volatile(name)}
    return fingerprint(msgspec.json.encode(kept | overrides, order="sorted").decode())
