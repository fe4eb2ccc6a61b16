"""Runs are the union of what was committed, however commits cut it; a gap between numbers is never bridged."""

from __future__ import annotations

from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.deduplicator.coverage.streams.seq_ranges import merge_segments

Segment = tuple[int, int, int]


def found(segments: list[Segment]) -> list[Segment]:
    schema = {"stream_id": pl.Int64, "seq_from": pl.Int64, "seq_to": pl.Int64}
    return sorted(merge_segments(pl.DataFrame(segments, schema=schema, orient="row")).rows())


def numbers(segments: list[Segment]) -> set[tuple[int, int]]:
    return {(stream, seq) for stream, low, high in segments for seq in range(low, high + 1)}


def test_contained_overlapping_and_touching_segments_are_one_run() -> None:
    assert found([(7, 5, 8), (7, 1, 10), (7, 21, 25), (7, 3, 20)]) == [(7, 1, 25)]


def test_a_missing_number_and_another_stream_begin_a_new_run() -> None:
    assert found([(7, 1, 4), (7, 6, 9), (8, 10, 12)]) == [(7, 1, 4), (7, 6, 9), (8, 10, 12)]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(0, 12)), max_size=20))
def test_runs_hold_exactly_the_numbers_of_their_segments_and_never_touch(raw: list[Segment]) -> None:
    segments = [(stream, low, low + length) for stream, low, length in raw]
    joined = found(segments)
    assert numbers(joined) == numbers(segments)
    for (stream, _low, high), (next_stream, next_low, _high) in pairwise(joined):
        assert stream != next_stream or next_low > high + 1
