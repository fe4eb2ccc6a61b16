"""Reads one value from each of the shapes in which Kalshi has sent it. Pure; shared by frames and REST answers.

Source: docs.kalshi.com, getting_started/fixed_point_migration (read 2026-11-22).
"""

from __future__ import annotations

from typing import cast

import msgspec

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.market.names import is_name, readable
from kalshi_platform.market.records import Levels, Side
from kalshi_platform.market.units import count_e2, e2_from_whole, price_e4, price_e4_from_cents


def canonical_json(value: object) -> str:
    """Return `value` as JSON text with sorted keys: equal objects have equal text.

    Raises UnparsableMessage("nesting"): encoding reaches the interpreter's depth a little before decoding does.
    """
    try:
        return msgspec.json.encode(value, order="sorted").decode()
    except RecursionError as error:
        raise UnparsableMessage("nesting", "nested too deeply") from error


def ladder(levels: list[tuple[int, int]]) -> Levels:
    """Sort levels ascending by price and leave out the empty ones. Raises UnparsableMessage("levels")."""
    ordered = sorted(level for level in levels if level[1])
    if len({price for price, _ in ordered}) != len(ordered):
        raise UnparsableMessage("levels", "a price occurs twice in one side of a book")
    return tuple(ordered)


def price_of(dollars: str | None, cents: int | None) -> int | None:
    """Return the price in E4; an empty string means none, and wins over a legacy integer of cents."""
    if dollars is not None:
        return price_e4(dollars) if dollars else None
    return price_e4_from_cents(cents) if cents is not None else None


def size_of(contracts: str | None, whole: int | None) -> int | None:
    """Return the size in E2; an empty string means none, and wins over a legacy integer of contracts.

    Raises UnparsableMessage("range") for a negative integer.
    """
    if contracts is not None:
        return count_e2(contracts) if contracts else None
    if whole is None:
        return None
    if whole < 0:
        raise UnparsableMessage("range", f"{whole} contracts")
    return e2_from_whole(whole)


def side_of(*candidates: str | None) -> Side | None:
    """Return the first side that is given. Raises UnparsableMessage("side") for another word."""
    for text in candidates:
        if text:
            if text not in ("yes", "no"):
                raise UnparsableMessage("side", f"{text[:40]!r} is neither yes nor no")
            return cast(Side, text)
    return None


def name_of(text: str, field: str) -> str:
    """Return a text that names a row. Raises UnparsableMessage("name") where no key of a table can hold it."""
    if not is_name(text):
        raise UnparsableMessage("name", f"{field} of {len(text)} characters: {readable(text, 80)}")
    return text


def required(value: int | None, field: str) -> int:
    """Return `value`. Raises UnparsableMessage("missing_field") for None."""
    if value is None:
        raise UnparsableMessage("missing_field", f"neither shape of {field} is there")
    return value
