"""Divides all markets into parts by a hash of the ticker, for gatherers and for closes of hours. Pure.

The hash (CRC-32) is the same on every machine and in every version, so the parts of one division hold every market
once, whichever hosts work on them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection
from typing import NamedTuple


class MarketPart(NamedTuple):
    """Part `number` (1 …) of `total` parts of all markets."""

    number: int = 1
    total: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @staticmethod
    def parse(text: str) -> MarketPart:
        """Parse `i/n`. Raises ValueError."""
        number, _, total = text.partition("/")
        part = MarketPart(int(number), int(total))
        if not 1 <= part.number <= part.total:
            raise ValueError(f"{text} is no part: write i/n, with i from 1 to n")
        return part

    def holds(self, ticker: str) -> bool:
        """Return whether a market belongs to this part."""
        return hash_ticker(ticker) % self.total == self.number - 1


WHOLE = MarketPart()


def hash_ticker(ticker: str) -> int:
    """Return the hash that decides the part of a market: 32 bits."""
    return zlib.crc32(ticker.encode("utf-8", "surrogatepass"))


def list_missing_parts(parts: Collection[MarketPart], wanted: MarketPart = WHOLE) -> list[MarketPart]:
    """List what of `wanted` none of `parts` holds, as parts that do not overlap."""
    near = [part for part in parts if (part.number - wanted.number) % math.gcd(part.total, wanted.total) == 0]
    if not near:
        return [wanted]
    first = min(near, key=lambda part: part.total)
    total = math.lcm(first.total, wanted.total)
    pieces = [MarketPart(number, total) for number in range(wanted.number, total + 1, wanted.total)]
    outside = [piece for piece in pieces if (piece.number - first.number) % first.total]
    rest = [part for part in near if part != first]
    return [missing for piece in outside for missing in list_missing_parts(rest, piece)]
