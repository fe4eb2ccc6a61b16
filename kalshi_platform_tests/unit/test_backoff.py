"""Backoff: doubling, the cap, and jitter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.backoff import exponential


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.integers(-5, 10_000))
def test_exponential_of_integers_doubles_up_to_the_cap(base: int, cap: int, doublings: int) -> None:
    delay = exponential(base, cap, doublings)
    assert type(delay) is int
    assert delay == min(cap, base * 2 ** max(0, min(doublings, 60)))


def test_exponential_of_seconds_never_overflows() -> None:
    assert exponential(0.5, 20.0, 3) == 4.0
    assert exponential(0.5, 20.0, 10**9) == 20.0
