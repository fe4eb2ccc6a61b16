"""Price grids: the label a market carries, its ranges, and the prices they allow."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple


class Range(NamedTuple):
    """Prices from `start_e4` to `end_e4` in steps of `step_e4` (all 1/10,000 dollar)."""

    start_e4: int
    end_e4: int
    step_e4: int


GRIDS: dict[str, tuple[Range, ...]] = {
    "linear_cent": (Range(0, 10_000, 100),),
    "deci_cent": (Range(0, 10_000, 10),),
    "tapered_deci_cent": (Range(0, 1_000, 10), Range(1_000, 9_000, 100), Range(9_000, 10_000, 10)),
    "center_deci_edge_centi_cent": (Range(0, 100, 1), Range(100, 9_900, 10), Range(9_900, 10_000, 1)),
}


@cache
def prices(label: str) -> tuple[int, ...]:
    """Return every price_e4 a bid may have on this grid, ascending, without 0 and 1 dollar."""
    found = {price for start, end, step in GRIDS[label] for price in range(start, end + 1, step)}
    return tuple(sorted(found - {0, 10_000}))


@cache
def positions(label: str) -> dict[int, int]:
    """Return the index of each price in `prices(label)`."""
    return {price: index for index, price in enumerate(prices(label))}
