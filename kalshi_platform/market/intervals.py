"""Computes set operations on half-open intervals of microseconds. Pure.

A claim states that a record is complete for every moment of [start, end). Claims of several observers join only where
they touch; a hole is a span that no claim covers. Lists of intervals are sorted and disjoint, as `union` returns them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Interval: TypeAlias = tuple[int, int]
"""[start, end) in microseconds; empty unless start < end."""


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the least list of intervals that covers the same moments; intervals that touch become one."""
    joined: list[Interval] = []
    for start, end in sorted(each for each in intervals if each[0] < each[1]):
        if joined and start <= joined[-1][1]:
            if end > joined[-1][1]:
                joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def intersection(left: Sequence[Interval], right: Sequence[Interval]) -> list[Interval]:
    """Return the moments that both cover; both as `union` returns them."""
    common: list[Interval] = []
    i = j = 0
    while i < len(left) and j < len(right):
        start, end = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if start < end:
            common.append((start, end))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return common


def holes(claims: Sequence[Interval], within: Interval) -> list[Interval]:
    """Return the moments of `within` that no claim covers; claims as `union` returns them."""
    left: list[Interval] = []
    position, limit = within
    for start, end in claims:
        if start > position:
            left.append((position, min(start, limit)))
        position = max(position, end)
    left.append((position, limit))
    return [(start, end) for start, end in left if start < end]


def subtract(claims: Sequence[Interval], withdrawn: Sequence[Interval]) -> list[Interval]:
    """Return `claims` without the moments of `withdrawn`; both as `union` returns them."""
    if not claims:
        return []
    return intersection(claims, holes(withdrawn, (claims[0][0], claims[-1][1])))


def covers(claims: Sequence[Interval], moment: int) -> bool:
    """Return whether a claim covers the moment; claims as `union` returns them."""
    place = bisect_right(claims, moment, key=lambda each: each[0])
    return place > 0 and moment < claims[place - 1][1]


def length(intervals: Iterable[Interval]) -> int:
    """Return the total length of disjoint intervals, in microseconds."""
    return sum(end - start for start, end in intervals)
