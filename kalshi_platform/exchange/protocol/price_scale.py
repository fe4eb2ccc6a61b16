"""Whether books are on the scale that was asked for. Pure.

No-side prices come either as they are (the no-leg scale, which this platform asks for) or as one dollar minus them. A
book that nobody can trade against himself tells the two apart: on the no-leg scale max(yes) + max(no) < 1 dollar; on
the other one max(yes) < min(no). A book that violates the first and fulfils the second contradicts the request.
One crossed book can be an instant between two deltas of one match, so only several of them are believed.
"""

from __future__ import annotations

from kalshi_platform.market.records import Levels
from kalshi_platform.market.units import PRICE_E4_MAX

BELIEVED_AFTER = 3
"""Contradicting books of different markets, without a book in between that only the no-leg scale explains."""


def contradicts_no_leg(yes: Levels, no: Levels) -> bool:
    """Whether a two-sided book (levels ascending) is impossible on the no-leg scale and possible on the other."""
    if not yes or not no:
        return False
    return yes[-1][0] + no[-1][0] >= PRICE_E4_MAX and yes[-1][0] < no[0][0]


def proves_no_leg(yes: Levels, no: Levels) -> bool:
    """Whether a two-sided book is possible on the no-leg scale and impossible on the other."""
    if not yes or not no:
        return False
    return yes[-1][0] + no[-1][0] < PRICE_E4_MAX and yes[-1][0] >= no[0][0]


class PriceScaleMonitor:
    """Looks at snapshots; says once when the scale must be another one than was asked for."""

    def __init__(self) -> None:
        self.contradictions = 0
        self._markets: set[str] = set()
        self._said = False

    def observe(self, ticker: str, yes: Levels, no: Levels) -> bool:
        """Take one snapshot; return True at the moment when the contradiction becomes believable."""
        if contradicts_no_leg(yes, no):
            self.contradictions += 1
            self._markets.add(ticker)
            if len(self._markets) >= BELIEVED_AFTER and not self._said:
                self._said = True
                return True
        elif proves_no_leg(yes, no):
            self._markets.clear()
        return False
