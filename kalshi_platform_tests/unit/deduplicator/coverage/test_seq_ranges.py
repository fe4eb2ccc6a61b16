"""Runs are the union of what was committed, however commits cut it; a gap between numbers is never bridged."""

from __future__ import annotations

from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.deduplicator.coverage.streams.seq_ranges import clip_to_range, merge_segments

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


def test_touching_segments_are_a_run_and_book_subscriptions_end_with_it() -> None:
    segments = pl.DataFrame(
        [(1, 5, 6), (1, 1, 4), (1, 8, 9), (2, 1, 1)], schema=["stream_id", "seq_from", "seq_to"], orient="row"
    )
    found = merge_segments(segments)
    assert found.rows() == [(1, 1, 6), (1, 8, 9), (2, 1, 1)]
    book_subscriptions = pl.DataFrame(
        [(1, "A", 0, 2, None), (1, "B", 0, 3, 4), (1, "C", 0, 7, None), (1, "D", 0, 8, 12), (3, "E", 0, 1, None)],
        schema={
            "stream_id": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int64, "seq_from": pl.Int64,
            "seq_to": pl.Int64,
        },
        orient="row",
    )  # fmt: skip
    clipped = clip_to_range(book_subscriptions, found).select("ticker", "seq", "seq_end").rows()
    assert clipped == [("A", 2, 6), ("B", 3, 4), ("D", 8, 9)]
