"""Checks whether books are on the requested price scale. Pure.

No-side prices come either as they are (the no-leg scale, which this platform requests by `use_yes_price: false`) or as
one dollar minus them (docs.kalshi.com, getting_started/order_direction, read 2026-11-22). An uncrossed book
distinguishes the two: on the no-leg scale max(yes) + max(no) < 1 dollar; on the other one max(yes) < min(no). A book
that violates the first and fulfils the second contradicts the request. One crossed book can be an instant between two
deltas of one match, so only several of them raise an alarm.
"""

from __future__ import annotations

from kalshi_platform.market.records import Levels
from kalshi_platform.market.units import PRICE_E4_MAX

MARKETS_FOR_ALARM = 3
"""Books of so many markets must contradict, without a book in between that only the no-leg scale explains."""


def contradicts_no_leg(yes: Levels, no: Levels) -> bool:
    """Return whether a two-sided book (levels ascending) is possible on the other scale only."""
    if not yes or not no:
        return False
    return yes[-1][0] + no[-1][0] >= PRICE_E4_MAX and yes[-1][0] < no[0][0]


def proves_no_leg(yes: Levels, no: Levels) -> bool:
    """Return whether a two-sided book (levels ascending) is possible on the no-leg scale only."""
    if not yes or not no:
        return False
    return yes[-1][0] + no[-1][0] < PRICE_E4_MAX and yes[-1][0] >= no[0][0]


class PriceScaleMonitor:
    """Checks snapshots, and reports once that the scale is not the requested one."""

    def __init__(self) -> None:
        self.contradictions = 0
        self._markets: set[str] = set()
        self._is_reported = False

    def observe(self, ticker: str, yes: Levels, no: Levels) -> bool:
        """Check one snapshot; return True for the one that completes the evidence of a contradiction."""
        if contradicts_no_leg(yes, no):
            self.contradictions += 1
            self._markets.add(ticker)
            if len(self._markets) >= MARKETS_FOR_ALARM and not self._is_reported:
                self._is_reported = True
                return True
        elif proves_no_leg(yes, no):
            self._markets.clear()
        return False
