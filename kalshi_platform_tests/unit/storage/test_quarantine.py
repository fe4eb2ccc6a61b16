"""Rows of which the database refuses some are written without those."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.errors import DatabaseUnavailable, StatementRejected
from kalshi_platform.storage.quarantine import TooManyPartitions, may_pass_in_parts, write_in_parts
from kalshi_platform.storage.sqlstate import OUT_OF_MEMORY

BAD_VALUE, NO_TABLE = "22003", "42P01"


class FakeTable:
    """Refuses a part that holds one of `bad`, and one that is longer than `longest`."""

    def __init__(self, bad: set[int] = frozenset(), longest: int = 1_000, error: Exception | None = None) -> None:  # type: ignore[assignment]
        self.bad = bad
        self.longest = longest
        self.error = error or StatementRejected("out of range", sqlstate=BAD_VALUE)
        self.rows: list[int] = []
        self.quarantined: list[tuple[list[int], Exception]] = []
        self.attempts = 0

    def write(self, rows: Sequence[int]) -> None:
        self.attempts += 1
        if len(rows) > self.longest:
            raise TooManyPartitions
        if self.bad.intersection(rows):
            raise self.error
        self.rows.extend(rows)

    def quarantine(self, rows: Sequence[int], error: Exception) -> None:
        self.quarantined.append((list(rows), error))


@given(st.integers(1, 60), st.sets(st.integers(0, 59), max_size=6), st.integers(1, 60))
def test_any_bad_rows_are_quarantined_alone_and_the_others_written_in_order(
    count: int, bad: set[int], longest: int
) -> None:
    table = FakeTable(bad, longest)
    write_in_parts(list(range(count)), table.write, table.quarantine)
    assert table.rows == [row for row in range(count) if row not in bad]
    assert [rows for rows, _ in table.quarantined] == [[row] for row in range(count) if row in bad]


def test_one_bad_row_of_many_costs_logarithmic_attempts() -> None:
    table = FakeTable({700})
    write_in_parts(list(range(1_000)), table.write, table.quarantine)
    assert len(table.rows) == 999
    assert table.attempts <= 2 * 10 + 1


@pytest.mark.parametrize(
    "error", [StatementRejected("no table", sqlstate=NO_TABLE), DatabaseUnavailable("away", kind="unreachable")]
)
def test_a_refusal_that_no_row_is_to_blame_for_is_raised_and_nothing_quarantined(error: Exception) -> None:
    table = FakeTable({0}, error=error)
    with pytest.raises(type(error)):
        write_in_parts([0, 1, 2], table.write, table.quarantine)
    assert table.attempts == 1
    assert not table.quarantined


def test_a_server_without_memory_is_requested_smaller_parts_and_raises_for_one_row() -> None:
    table = FakeTable({2}, error=DatabaseUnavailable("out of shared memory", kind=OUT_OF_MEMORY))
    with pytest.raises(DatabaseUnavailable):
        write_in_parts([0, 1, 2], table.write, table.quarantine)
    assert table.rows == [0, 1]
    assert not table.quarantined


def test_polars_frames_are_cut_like_sequences() -> None:
    written: list[int] = []

    def write(frame: pl.DataFrame) -> None:
        if 3 in frame["row"]:
            raise OverflowError
        written.extend(frame["row"])

    refused: list[pl.DataFrame] = []
    write_in_parts(pl.DataFrame({"row": [1, 2, 3, 4, 5]}), write, lambda rows, _: refused.append(rows))
    assert written == [1, 2, 4, 5]
    assert [frame["row"].to_list() for frame in refused] == [[3]]


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (StatementRejected("x", sqlstate=BAD_VALUE), True),
        (StatementRejected("x", sqlstate=NO_TABLE), False),
        (DatabaseUnavailable("x", kind=OUT_OF_MEMORY), True),
        (DatabaseUnavailable("x", kind="unreachable"), False),
        (OverflowError(), True),
        (TooManyPartitions(), True),
    ],
)
def test_an_error_tells_whether_parts_may_pass(error: Exception, may: bool) -> None:
    assert may_pass_in_parts(error) is may
