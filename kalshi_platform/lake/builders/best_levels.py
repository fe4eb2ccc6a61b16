"""Finds the best level of many books at every moment at once. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def best_levels(stop: Ints, moment: Ints, price_e4: Ints, delta_e2: Ints) -> tuple[Ints, Ints]:
    """The highest price with a size above zero at each moment, and its size; -1 and 0 where there is none.

    Moments are numbered through all books, those of one book side by side; `stop[m]` is the number after the last
    moment of the book of m. `moment`, `price_e4`, `delta_e2`: changes, each of which holds from its moment on.

    A level has one size from one change of it to the next: an interval of moments. The best level of a moment is the
    highest of the intervals that hold it; these maxima are taken over power-of-two blocks, from the widest to the
    narrowest, which takes a few passes over the moments however the book moves.
    """
    order = np.argsort((price_e4 << 40) | moment, kind="stable")
    price, at, delta = price_e4[order], moment[order], delta_e2[order]
    end = stop[at]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (price[1:] != price[:-1]) | (end[1:] != end[:-1])
    running = np.cumsum(delta)
    first = np.flatnonzero(is_new)
    before = running[first] - delta[first]
    size = running - np.repeat(before, np.diff(np.r_[first, len(order)]))
    until = end.copy()
    until[:-1] = np.where(is_new[1:], end[:-1], at[1:])
    # Changes of one moment apply together: only the last one's interval has a length.
    rows = np.flatnonzero((size > 0) & (until > at))
    best = _highest(at[rows], until[rows], len(stop))
    if not len(rows):
        return best.astype(np.int64), np.zeros(len(stop), np.int64)
    chosen = rows[np.maximum(best, 0)]
    return np.where(best >= 0, price[chosen], -1), np.where(best >= 0, size[chosen], 0)


def _highest(start: Ints, end: Ints, moments: int) -> npt.NDArray[np.int32]:
    """The last of the intervals start <= m < end that hold each moment m, by its number; -1 where none does."""
    best = np.full(moments, -1, np.int32)
    if not len(start):
        return best
    number = np.arange(len(start), dtype=np.int32)
    power = np.frexp((end - start).astype(np.float64))[1].astype(np.int8) - 1
    by_power = np.argsort(power, kind="stable")
    bounds = np.searchsorted(power[by_power], np.arange(int(power.max()) + 2))
    for level in range(int(power.max()), -1, -1):
        chosen = by_power[bounds[level] : bounds[level + 1]]
        # A block of 2^level moments at either end of the interval covers it.
        np.maximum.at(best, start[chosen], number[chosen])
        np.maximum.at(best, end[chosen] - (1 << level), number[chosen])
        if level:
            half = 1 << (level - 1)
            narrower = best.copy()
            np.maximum(best[half:], best[:-half], out=narrower[half:])
            best = narrower
    return best
