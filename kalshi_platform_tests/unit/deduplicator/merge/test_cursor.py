"""What one pass takes of a gatherer's batches."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.deduplicator.merge.cursor import Batch, merge_windows, plan_read

T0 = datetime(2026, 11, 23, tzinfo=UTC)


def line(number: int, rows: int = 10, table: str = "orderbook_deltas", low: int = 0, high: int = 1) -> Batch:
    return Batch(number, table, rows, T0 + timedelta(seconds=low), T0 + timedelta(seconds=high), T0)


def test_a_pass_reads_at_least_one_batch_and_stops_before_its_limit() -> None:
    lines = [line(3, 50), line(5, 6), line(5, 3, "trades"), line(9, 2)]
    assert plan_read(lines, 2, rows_per_pass=10).until == 3  # the first alone is too big, and taken
    assert plan_read(lines[1:], 3, rows_per_pass=10).until == 5
    assert plan_read(lines[1:], 3, rows_per_pass=10).behind
    assert plan_read(lines[1:], 3, rows_per_pass=11).until == 9
    assert plan_read(lines[1:], 3, rows_per_pass=11).behind is False


def test_snapshots_are_weighted_by_their_bytes() -> None:
    def books(number: int, levels: int) -> Batch:
        return replace(line(number, 10, "orderbook_snapshots"), size=10 * levels * 16)

    small, large = [books(number, 20) for number in (1, 2, 3)], [books(number, 4_000) for number in (1, 2, 3)]
    assert plan_read(small, 0, rows_per_pass=12_000).until == 3
    assert plan_read(large, 0, rows_per_pass=12_000).until == 1
    assert plan_read(large, 0, rows_per_pass=13_000).until == 2
    # Of an old line nobody knows; other rows are alike.
    assert plan_read([replace(each, size=None) for each in large], 0, rows_per_pass=600).until == 3
    assert plan_read([replace(line(1), size=10**9), line(2)], 0, rows_per_pass=20).until == 2


def test_a_plan_ends_at_a_batch_that_left_a_line() -> None:
    nothing = plan_read([], 4, rows_per_pass=10)
    assert (nothing.until, nothing.last, nothing.behind) == (4, None, False)
    ledger = line(7, 0, "ledger")
    read = plan_read([line(5), ledger], 4, rows_per_pass=10)
    assert (read.until, read.last, list(read.windows)) == (7, ledger, ["orderbook_deltas"])


def test_a_cut_list_of_batches_ends_before_its_last_number() -> None:
    read = plan_read([line(5), line(6), line(6, table="trades")], 4, rows_per_pass=1_000, is_cut=True)
    assert (read.until, read.behind) == (5, True)


def test_late_rows_do_not_widen_the_windows_of_punctual_ones() -> None:
    lines = [line(1, low=100, high=105), line(2, low=0, high=2), line(3, low=104, high=110), line(4, low=110, high=111)]
    assert [((low - T0).seconds, (high - T0).seconds) for low, high in merge_windows(lines)] == [(0, 2), (100, 111)]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(0, 50), st.integers(0, 9)), max_size=20),
    st.integers(1, 60),
)
def test_passes_cover_every_batch_once_within_its_window(
    drawn: list[tuple[int, int, int, int]], rows_per_pass: int
) -> None:
    lines, number = [], 0
    for step, rows, low, span in drawn:
        number += step
        lines.append(line(number, rows, low=low, high=low + span))
    seen, after = [], 0
    while after < number:
        read = plan_read([each for each in lines if each.batch_no > after], after, rows_per_pass)
        assert read.until > after
        taken = [each for each in lines if read.after < each.batch_no <= read.until]
        assert len(taken) <= 1 or sum(each.rows for each in taken) <= rows_per_pass
        windows = read.windows.get("orderbook_deltas", ())
        for each in taken:
            assert sum(low <= each.time_min and each.time_max <= high for low, high in windows) == 1
        assert all(first[1] < second[0] for first, second in pairwise(windows))
        seen += taken
        after = read.until
    assert seen == lines


def test_a_whole_book_weighs_as_many_rows() -> None:
    lines = [line(1, 2, "orderbook_snapshots"), line(2, 60), line(3, 1)]
    assert plan_read(lines, 0, rows_per_pass=100).until == 2
    assert plan_read(lines, 0, rows_per_pass=101).until == 3
