"""Occurrence numbers and fingerprints: what makes rows of different gatherers one row."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.market.identity import DeltaContent, OccurrenceCounter, fingerprint

KEYS = st.tuples(
    st.integers(1, 3), st.sampled_from("AB"), st.sampled_from(["yes", "no"]), st.just(5), st.sampled_from([1, -1])
)


@given(st.lists(KEYS, max_size=60))
def test_occurrence_counts_equal_deltas_from_zero(keys: list[tuple[int, str, str, int, int]]) -> None:
    counter, seen = OccurrenceCounter(), Counter[object]()
    for number, key in enumerate(keys, 1):
        assert counter.next(number, *key) == seen[key]
        seen[key] += 1


@given(st.lists(KEYS, max_size=40), st.data())
def test_a_stream_that_lost_frames_never_numbers_beyond_the_truth(keys: list, data: st.DataObject) -> None:  # type: ignore[type-arg]
    kept = [key for key in keys if data.draw(st.booleans())]
    full, partial = OccurrenceCounter(), OccurrenceCounter()
    truth = {(key, full.next(number, *key)) for number, key in enumerate(keys, 1)}
    assert {(key, partial.next(number, *key)) for number, key in enumerate(kept, 1)} <= truth


def test_memory_is_bounded_and_a_recent_timestamp_keeps_its_count() -> None:
    counter = OccurrenceCounter(slot_size=100)
    for time in range(1_000):
        counter.next(2 * time + 1, time, "A", "yes", 1, 1)
        if time:
            assert counter.next(2 * time + 2, time - 1, "A", "yes", 1, 1) == 1
    assert len(counter._young) + len(counter._old) <= 200


@given(st.lists(KEYS, min_size=20, max_size=80), st.integers(0, 80))
def test_counts_do_not_depend_on_where_counting_began_before_the_slot_before(keys: list[Any], begin: int) -> None:
    whole, late = OccurrenceCounter(slot_size=8), OccurrenceCounter(slot_size=8)
    for number, key in enumerate(keys):
        expected = whole.next(number, *key)
        if number >= begin:
            found = late.next(number, *key)
            if number // 8 > begin // 8 + 1:
                assert found == expected


@given(st.lists(KEYS, max_size=60), st.lists(st.integers(1, 9)), st.integers(0, 20))
def test_deltas_counted_together_have_the_counts_of_each(keys: list[Any], sizes: list[int], start: int) -> None:
    alone, together = OccurrenceCounter(slot_size=8), OccurrenceCounter(slot_size=8)
    expected = [alone.next(number, *key) for number, key in enumerate(keys, start)]
    found: list[int] = []
    for size in [*sizes, *[9] * 7]:
        part = keys[len(found) : len(found) + size]
        if part:
            numbers = range(start + len(found), start + len(found) + len(part))
            found += together.next_all(numbers, [key[0] for key in part], [DeltaContent(*key[1:]) for key in part])
    assert found == expected


def test_fingerprints_are_the_same_in_every_process() -> None:
    code = "from kalshi_platform.market.identity import fingerprint; print(fingerprint('A', None, 5))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == fingerprint("A", None, 5)
    assert -(2**63) <= fingerprint("A", None, 5) < 2**63


@given(st.lists(st.none() | st.integers() | st.text(alphabet="ab5", max_size=3), min_size=1, max_size=5))
def test_fingerprints_distinguish_positions_and_none(parts: list[object]) -> None:
    assert fingerprint(*parts) == fingerprint(*parts)
    assert fingerprint(*parts) != fingerprint(*parts, None)
    assert fingerprint(*parts, None) != fingerprint(*parts, "")
