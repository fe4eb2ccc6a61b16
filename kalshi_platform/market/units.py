"""Converts Kalshi's decimal strings to exact scaled integers.

| unit | meaning | range |
|---|---|---|
| `price_e4` | 1/10,000 dollar | 0 … 10,000 |
| `count_e2`, `delta_e2` | 1/100 contract | 64 bit; a delta is signed |
| `*_e6` | 1/1,000,000 dollar (settlement values, money) | 64 bit |

Nothing here uses a float. The three readers cache their conversions, because an exchange with a price grid sends few
distinct strings; the caches are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kalshi_platform.errors import UnparsableMessage

PRICE_E4_MAX = 10_000
INT64_MAX = 2**63 - 1
_CACHE_LIMIT = 65_536
# Bounded, so that a hostile text of a million digits costs no time.
_PLAIN_DECIMAL = re.compile(r"([+-]?)([0-9]{1,40})(?:\.([0-9]{0,40}))?")


def scaled(text: str, digits: int) -> int:
    """Return `text` × 10^digits as an exact integer.

    Raises UnparsableMessage("number") when the text is no plain decimal number (no exponent, blank or underscore), does
    not fit 64 bits, or has more decimals than the unit holds (zeros at the end do not count).
    """
    match = _PLAIN_DECIMAL.fullmatch(text)
    if match is None:
        raise UnparsableMessage("number", f"{text[:80]!r} is not a decimal number")
    sign, whole, fraction = match.groups()
    fraction = (fraction or "").rstrip("0")
    if len(fraction) > digits:
        raise UnparsableMessage("number", f"{text!r} has more than {digits} decimals")
    value = int(whole + fraction.ljust(digits, "0"))
    if value > INT64_MAX:
        raise UnparsableMessage("number", f"{text!r} does not fit 64 bits at {digits} decimals")
    return -value if sign == "-" else value


class _Reader(dict[str, int]):
    """Caches exact conversions: `reader[text]` converts each text once."""

    def __init__(self, digits: int, low: int, high: int, unit: str) -> None:
        super().__init__()
        self._digits = digits
        self._low = low
        self._high = high
        self._unit = unit

    def __missing__(self, text: str) -> int:
        value = scaled(text, self._digits)
        if not self._low <= value <= self._high:
            raise UnparsableMessage("range", f"{text!r} is outside {self._low}…{self._high} {self._unit}")
        if len(self) >= _CACHE_LIMIT:
            self.clear()
        self[text] = value
        return value


_PRICES = _Reader(4, 0, PRICE_E4_MAX, "price_e4")
_COUNTS = _Reader(2, 0, INT64_MAX, "count_e2")
_DELTAS = _Reader(2, -INT64_MAX, INT64_MAX, "delta_e2")


def price_e4(dollars: str) -> int:
    """Convert `"0.5600"` to 5600. Raises UnparsableMessage outside 0…1 dollar or beyond four decimals."""
    return _PRICES[dollars]


def all_price_e4(dollars: Iterable[str]) -> list[int]:
    """Return what `price_e4` returns for each, without a call for each."""
    return [_PRICES[each] for each in dollars]


def count_e2(contracts: str) -> int:
    """Convert `"12.50"` to 1250. Raises UnparsableMessage when negative."""
    return _COUNTS[contracts]


def delta_e2(contracts: str) -> int:
    """Convert `"-20.00"` to -2000 (signed change of a level)."""
    return _DELTAS[contracts]


def all_delta_e2(contracts: Iterable[str]) -> list[int]:
    """Return what `delta_e2` returns for each, without a call for each."""
    return [_DELTAS[each] for each in contracts]


def money_e6(dollars: str) -> int:
    """Convert `"1.0000"` to 1000000."""
    return scaled(dollars, 6)


def price_e4_from_cents(cents: int) -> int:
    """Convert 56 to 5600 (legacy shape). Raises UnparsableMessage outside 0…100."""
    if not 0 <= cents <= 100:
        raise UnparsableMessage("range", f"{cents} is not a price in cents")
    return cents * 100


def e2_from_whole(contracts: int) -> int:
    """Convert 100 contracts to 10000 (legacy shape, counts and deltas)."""
    if abs(contracts) > INT64_MAX // 100:
        raise UnparsableMessage("range", f"{contracts} contracts do not fit 64 bits at 2 decimals")
    return contracts * 100


def dollars_text(value_e4: int) -> str:
    """Convert 5600 to `"0.5600"`."""
    sign = "-" if value_e4 < 0 else ""
    whole, part = divmod(abs(value_e4), 10_000)
    return f"{sign}{whole}.{part:04d}"


def contracts_text(value_e2: int) -> str:
    """Convert 1250 to `"12.50"`."""
    sign = "-" if value_e2 < 0 else ""
    whole, part = divmod(abs(value_e2), 100)
    return f"{sign}{whole}.{part:02d}"
