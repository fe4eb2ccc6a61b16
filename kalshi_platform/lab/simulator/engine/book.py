"""One market's resting bids: two ladders, each on its own outcome's price scale."""

from __future__ import annotations

from kalshi_platform.errors import PermanentError

YES, NO = 0, 1
SIDES = ("yes", "no")
ONE_DOLLAR_E4 = 10_000


class BookViolation(PermanentError):
    """A change that no exchange would publish: a level below zero, or a price outside 0…1 dollar."""


class Book:
    """`levels[side]` maps price_e4 to size_e2 (> 0); `best[side]` is the highest price, 0 when the side is empty.

    `is_touched` says that the best price of a side, or its size, may have changed since somebody set it to False.
    """

    __slots__ = ("best", "is_touched", "levels")

    def __init__(self) -> None:
        self.is_touched = True
        self.levels: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.best: list[int] = [0, 0]

    def apply(self, side: int, price_e4: int, delta_e2: int) -> None:
        """Change one level; raises `BookViolation` and changes nothing when it would fall below zero."""
        levels = self.levels[side]
        size = levels.get(price_e4, 0) + delta_e2
        if size > 0:
            if not 0 < price_e4 < ONE_DOLLAR_E4:
                raise BookViolation(f"price_e4 {price_e4} lies outside the open interval (0, {ONE_DOLLAR_E4})")
            levels[price_e4] = size
            if price_e4 >= self.best[side]:
                self.best[side] = price_e4
                self.is_touched = True
        elif size == 0:
            levels.pop(price_e4, None)
            if price_e4 == self.best[side]:
                self.best[side] = max(levels, default=0)
                self.is_touched = True
        else:
            raise BookViolation(f"level {SIDES[side]} {price_e4} would hold {size} (1/100 contracts)")

    def replace(self, side: int, levels: dict[int, int]) -> None:
        """Set one side to `levels`."""
        own = self.levels[side]
        own.clear()
        own.update({price: size for price, size in levels.items() if size > 0})
        self.best[side] = max(own, default=0)
        self.is_touched = True

    def sorted_levels(self, side: int) -> list[tuple[int, int]]:
        """Return (price_e4, size_e2) ascending, best bid last."""
        return sorted(self.levels[side].items())

    def top(self) -> tuple[int, int, int, int]:
        """Return best yes price and size, best no price and size; zeros for an empty side."""
        yes, no = self.best
        return yes, self.levels[YES].get(yes, 0), no, self.levels[NO].get(no, 0)
