"""Checks books of production against each other and against polled ones, by their hashes. Pure.

A checkpoint and the deltas after it give the next checkpoint wherever all between is covered. A polled book (REST) has
neither number nor exchange time: it is compared with every book that production had in its window, also between rows of
one exchange time. Equal to one of them: consistent. Equal to none although all is covered: inconsistent. Else
undecided.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kalshi_platform.deduplicator.coverage.multiset_hash import Hashes
from kalshi_platform.deduplicator.coverage.timeline import Covered, Ints, Timeline

CONSISTENT, INCONSISTENT, UNDECIDED = 1, -1, 0
# Rows of one exchange time from several observers have no known order: so many at most are tried in every one.
_MOST_UNORDERED = 10
_CANDIDATES_AT_ONCE = 1 << 22


class Checkpoints(NamedTuple):
    """Books at the ends of exchange times, ascending by (market, us)."""

    market: Ints
    us: Ints
    sums: Hashes


class PolledBooks(NamedTuple):
    """Polled books: each was the market's at some moment from low_us to high_us of the exchange's clock."""

    market: Ints
    low_us: Ints
    high_us: Ints
    sums: Hashes


class CheckpointChecks(NamedTuple):
    """Pairs of neighbouring checkpoints (places in Checkpoints) that could be compared."""

    first: Ints
    second: Ints
    passed: npt.NDArray[np.bool_]


class PolledChecks(NamedTuple):
    """`verdicts`: CONSISTENT, INCONSISTENT or UNDECIDED; `checkpoint`: the place of the one used, -1 for none."""

    verdicts: npt.NDArray[np.int8]
    checkpoint: Ints


def check_checkpoints(timeline: Timeline, covered: Covered, checkpoints: Checkpoints) -> CheckpointChecks:
    """Compare each checkpoint with the one before it, of the same market, where all between is covered."""
    first = np.flatnonzero(checkpoints.market[1:] == checkpoints.market[:-1])
    second = first + 1
    market = checkpoints.market[first]
    decided = covered.holds(market, checkpoints.us[first] + 1, checkpoints.us[second] + 1)
    first, second = first[decided], second[decided]
    offsets = _offsets(timeline, checkpoints)
    return CheckpointChecks(first, second, offsets[first] == offsets[second])


def check_polled_books(
    timeline: Timeline, covered: Covered, checkpoints: Checkpoints, polled: PolledBooks
) -> PolledChecks:
    """Compare polled books with production's."""
    keys = timeline.key(checkpoints.market, checkpoints.us)
    # A checkpoint of the window's first moment is the book at the end of it: the polled one may lie before.
    at_low = np.searchsorted(keys, timeline.key(polled.market, polled.low_us), side="left") - 1
    at_high = np.searchsorted(keys, timeline.key(polled.market, polled.high_us), side="right") - 1
    whole = _is_market(checkpoints, at_low, polled.market)
    # A checkpoint inside of the window: only the books after it are known.
    partly = ~whole & _is_market(checkpoints, at_high, polled.market)
    partly_first = at_low + 1
    used = np.where(whole, at_low, np.where(partly, partly_first, -1))
    near = np.maximum(used, 0)
    verdicts = np.zeros(len(used), dtype=np.int8)
    if not len(checkpoints.us):
        return PolledChecks(verdicts, used)
    known = (used >= 0) & covered.holds(polled.market, checkpoints.us[near] + 1, polled.high_us + 1)
    offsets, begins = _offsets(timeline, checkpoints), timeline.after(checkpoints.market, checkpoints.us)
    wanted = polled.sums - offsets[near]
    low = np.maximum(timeline.before(polled.market, polled.low_us), begins[near])
    high = timeline.after(polled.market, polled.high_us)
    decidable = np.flatnonzero(known)
    matched = _contains_sum(timeline.sums, low[decidable], high[decidable], wanted[decidable])
    for place in np.flatnonzero(~matched):
        row = decidable[place]
        matched[place] = _contains_sum_out_of_order(timeline, int(low[row]), int(high[row]), wanted[row])
    verdicts[decidable] = np.where(matched, CONSISTENT, np.where(whole[decidable], INCONSISTENT, UNDECIDED))
    for place in np.flatnonzero(verdicts == INCONSISTENT):
        if _has_too_many_orders(timeline, int(low[place]), int(high[place])):
            verdicts[place] = UNDECIDED
    return PolledChecks(verdicts, used)


def _offsets(timeline: Timeline, checkpoints: Checkpoints) -> Hashes:
    """What to add to the running sums of the rows to get the book of each checkpoint."""
    found: Hashes = checkpoints.sums - timeline.sums[timeline.after(checkpoints.market, checkpoints.us)]
    return found


def _is_market(checkpoints: Checkpoints, places: Ints, market: Ints) -> npt.NDArray[np.bool_]:
    if not len(checkpoints.us):
        return np.zeros(len(places), dtype=np.bool_)
    found: npt.NDArray[np.bool_] = (places >= 0) & (checkpoints.market[np.maximum(places, 0)] == market)
    return found


def _contains_sum(sums: Hashes, low: Ints, high: Ints, wanted: Hashes) -> npt.NDArray[np.bool_]:
    """Whether sums[low … high] (inclusive) holds the wanted value, for each of many ranges."""
    matched = np.zeros(len(low), dtype=np.bool_)
    lengths = high - low + 1
    ends = np.cumsum(lengths)
    first = 0
    while first < len(low):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _CANDIDATES_AT_ONCE, side="right")))
        part = lengths[first:last]
        owner = np.repeat(np.arange(first, last), part)
        within = np.arange(int(part.sum())) - np.repeat(np.cumsum(part) - part, part)
        hits = sums[low[owner] + within] == wanted[owner]
        matched[owner[hits]] = True
        first = last
    return matched


def _find_unordered(timeline: Timeline, low: int, high: int) -> list[tuple[int, int]]:
    """Rows low … high - 1 that share an exchange time and came from several observers, as ranges."""
    if timeline.observer is None or high - low < 2:
        return []
    edges = [low, *(np.flatnonzero(np.diff(timeline.keys[low:high])) + 1 + low).tolist(), high]
    return [
        (first, last)
        for first, last in pairwise(edges)
        if last - first > 1 and len(set(timeline.observer[first:last].tolist())) > 1
    ]


def _contains_sum_out_of_order(timeline: Timeline, low: int, high: int, wanted: np.uint64) -> bool:
    for first, last in _find_unordered(timeline, low, high):
        if last - first > _MOST_UNORDERED:
            continue
        missing = (int(wanted) - int(timeline.sums[first])) % 2**64
        parts = [int(part) for part in timeline.parts[first:last]]
        for count in range(1, len(parts)):
            if any(sum(chosen) % 2**64 == missing for chosen in combinations(parts, count)):
                return True
    return False


def _has_too_many_orders(timeline: Timeline, low: int, high: int) -> bool:
    return any(last - first > _MOST_UNORDERED for first, last in _find_unordered(timeline, low, high))
