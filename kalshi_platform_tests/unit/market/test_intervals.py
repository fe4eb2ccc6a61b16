"""Claims and holes against sets of single moments."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.market.intervals import Interval, covers, holes, intersection, length, subtract, union

END = 40
interval = st.tuples(st.integers(0, END), st.integers(0, END))
intervals = st.lists(interval, max_size=8)


def moments(of: list[Interval]) -> set[int]:
    return {moment for start, end in of for moment in range(start, end)}


@given(intervals)
def test_a_union_covers_the_same_moments_in_the_fewest_intervals(given_: list[Interval]) -> None:
    joined = union(given_)
    assert moments(joined) == moments(given_)
    assert all(start < end for start, end in joined)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(joined))
    assert length(joined) == len(moments(given_))


@given(intervals, interval)
def test_claims_and_holes_share_a_span_between_them(given_: list[Interval], within: Interval) -> None:
    claims = union(given_)
    open_ = holes(claims, within)
    assert moments(open_) == set(range(*within)) - moments(claims)
    assert open_ == union(open_)


@given(intervals, intervals)
def test_intersection_and_difference(left: list[Interval], right: list[Interval]) -> None:
    a, b = union(left), union(right)
    assert moments(intersection(a, b)) == moments(a) & moments(b)
    assert moments(subtract(a, b)) == moments(a) - moments(b)


@given(intervals, st.integers(-1, END + 1))
def test_a_moment_is_covered_by_the_claim_around_it(given_: list[Interval], moment: int) -> None:
    assert covers(union(given_), moment) == (moment in moments(given_))


def test_claims_join_only_where_they_touch() -> None:
    assert union([(0, 10), (10, 20), (21, 30)]) == [(0, 20), (21, 30)]
