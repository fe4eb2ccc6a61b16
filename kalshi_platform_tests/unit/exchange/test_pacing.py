"""Budgets and delays, on invented time and chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.backoff import Backoff
from kalshi_platform.exchange.pacing import RateLimitedQueue, TokenBucket


def test_a_full_bucket_is_free_and_an_empty_one_queues_callers_in_order() -> None:
    bucket = TokenBucket(10, 20, now=0.0)
    assert [bucket.spend(10, 0.0) for _ in range(4)] == [0, 0, 1, 2]
    assert bucket.spend(10, 3.0) == pytest.approx(0.0)
    assert bucket.available(3.0) == pytest.approx(0.0)
    assert bucket.available(1_000.0) == 20


@given(st.lists(st.tuples(st.floats(0, 2), st.sampled_from([1.0, 10.0])), min_size=1, max_size=60))
def test_no_span_grants_more_than_capacity_and_refill(steps: list[tuple[float, float]]) -> None:
    bucket, now = TokenBucket(5, 20, now=0.0), 0.0
    grants: list[tuple[float, float]] = []
    for wait, cost in steps:
        now += wait
        grants.append((now + bucket.spend(cost, now), cost))
    for start in range(len(grants)):
        for end in range(start, len(grants)):
            spent = sum(cost for _, cost in grants[start : end + 1])
            assert spent <= 20 + 5 * (grants[end][0] - grants[start][0]) + 10 + 1e-6


def test_a_bucket_can_be_resized_and_drained() -> None:
    bucket = TokenBucket(10, 100, now=0.0)
    bucket.resize(2, 4, now=0.0)
    assert bucket.available(0.0) == 4
    bucket.drain(0.0)
    assert bucket.spend(4, 0.0) == 2.0
    bucket.drain(0.0)
    assert bucket.spend(2, 0.0) == 3.0  # what was promised stays promised


def test_time_that_stands_still_or_goes_back_refills_nothing() -> None:
    bucket = TokenBucket(10, 10, now=5.0)
    bucket.spend(10, 5.0)
    assert bucket.spend(10, 4.0) == 1.0


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 80))
def test_delays_double_to_the_cap_and_start_again_after_a_calm(chance: float, failures: int) -> None:
    backoff = Backoff(0.5, 20, lambda: chance)
    for number in range(failures):
        ceiling = min(20.0, 0.5 * 2**number)
        assert ceiling / 2 <= backoff.next() <= ceiling
    backoff.reset()
    assert backoff.next() <= 0.5


def test_commands_keep_their_order_and_their_pace() -> None:
    pace = RateLimitedQueue(10.0, 1_000.0, now=0.0)
    commands = [b"%02d" % number for number in range(35)]
    pace.add(commands[:20])
    pace.add(commands[20:])
    sent = pace.pop_ready(0.0)
    assert len(sent) == 10
    assert pace.pop_ready(0.05) == []
    for tenth in range(1, 40):
        due = pace.pop_ready(tenth / 10)
        assert len(due) <= 1 + 1
        sent += due
    assert sent == commands
    assert len(pace) == 0


def test_large_commands_wait_for_bytes() -> None:
    pace = RateLimitedQueue(1_000.0, 1_000.0, now=0.0)
    pace.add([b"x" * 900, b"y" * 900, b"z" * 900])
    # The second is larger than what is left of the second, so it goes and the third waits until that is made up for.
    assert [each[:1] for each in pace.pop_ready(0.0)] == [b"x", b"y"]
    assert pace.pop_ready(0.7) == []
    assert [each[:1] for each in pace.pop_ready(0.9)] == [b"z"]
