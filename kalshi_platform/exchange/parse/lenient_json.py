"""Decodes the exchange's JSON strictly, and where that fails repairs the broken values. Pure.

Half an emoji (a lone surrogate, valid by RFC 8259) or a Latin-1 byte in one title must not cost the whole page.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from kalshi_platform.errors import UnparsableMessage

_REPLACEMENT = "\ufffd"
# int() refuses longer ones, for which it takes quadratic time.
_MOST_DIGITS = 4_300


def decode_json(content: bytes | str) -> tuple[Any, int]:
    """Return the value, and how many of its texts and numbers had to be changed (0: none).

    Bytes and surrogates that are not Unicode become U+FFFD; numbers beyond float64, NaN and infinities become texts, as
    they were written. Raises UnparsableMessage("json") for what is not JSON even so.
    """
    try:
        return msgspec.json.decode(content), 0
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return _repaired(content)


def _repaired(content: bytes | str) -> tuple[Any, int]:
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
    changed = 0

    def as_text(number: str) -> str:
        nonlocal changed
        changed += 1
        return number

    def whole(number: str) -> int | str:
        return int(number) if len(number) < _MOST_DIGITS else as_text(number)

    def fraction(number: str) -> float | str:
        value = float(number)
        return value if math.isfinite(value) else as_text(number)

    def clean(value: Any) -> Any:
        nonlocal changed
        if isinstance(value, str):
            unicode = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            changed += _REPLACEMENT in unicode
            return unicode
        if isinstance(value, list):
            return [clean(item) for item in value]
        if isinstance(value, dict):
            return {clean(name): clean(item) for name, item in value.items()}
        return value

    try:
        # strict=False: a raw line break inside a text must not fail either.
        decoder = json.JSONDecoder(strict=False, parse_int=whole, parse_float=fraction, parse_constant=as_text)
        return clean(decoder.decode(text)), changed
    except (ValueError, RecursionError) as error:
        raise UnparsableMessage("json", str(error)[:200]) from error
