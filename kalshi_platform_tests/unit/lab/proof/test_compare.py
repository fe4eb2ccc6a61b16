"""Missing, doubled and wrong, each told as what it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import polars as pl
import pytest

from kalshi_platform.lab.proof.comparison.compare import Comparison, Difference, compare
from kalshi_platform.lab.proof.comparison.tables import (
    DELTAS,
    LIFECYCLE,
    REQUIRED,
    TICKERS,
    TRADES,
    ComparableTable,
    shaped,
    ticker_columns,
)

ROWS = [
    (1_000, "A", "yes", 5_000, 100),
    (1_000, "A", "yes", 5_000, 100),  # equal in every field, and both real
    (1_000, "A", "yes", 5_000, 200),
    (2_000, "B", "no", 100, -100),
    (3_000, "B", "no", 100, 100),
]


def deltas(rows: Sequence[tuple[object, ...]]) -> pl.DataFrame:
    return shaped(DELTAS, pl.DataFrame(rows, schema=list(DELTAS.columns), orient="row"))


def differences(truth: pl.DataFrame, found: pl.DataFrame, table: ComparableTable = DELTAS) -> tuple[int, int, int]:
    difference: Difference = compare(table, truth.with_columns(pl.lit(value=True).alias(REQUIRED)), found)
    return difference.missing.height, difference.doubled.height, difference.wrong.height


def test_equal_rows_are_counted_and_not_collapsed() -> None:
    assert differences(deltas(ROWS), deltas(ROWS[::-1])) == (0, 0, 0)
    assert differences(deltas(ROWS), deltas(ROWS[1:])) == (1, 0, 0)
    assert differences(deltas(ROWS), deltas([*ROWS, ROWS[0]])) == (0, 1, 0)


@pytest.mark.parametrize("column", range(5))
def test_a_row_with_one_column_changed_is_wrong_and_not_missing_too(column: int) -> None:
    changed = list(ROWS[3])
    changed[column] = {0: 2_001, 1: "C", 2: "yes", 3: 200, 4: -99}[column]
    found = [*ROWS[:3], tuple(changed), ROWS[4]]
    assert differences(deltas(ROWS), deltas(found)) == (0, 0, 1)


def test_all_three_at_once() -> None:
    found = [*ROWS[1:4], ROWS[3], (3_000, "B", "no", 100, 101)]
    assert differences(deltas(ROWS), deltas(found)) == (1, 1, 1)


def test_a_stranger_is_wrong() -> None:
    assert differences(deltas(ROWS), deltas([*ROWS, (9_000, "Z", "yes", 1, 1)])) == (0, 0, 1)


def test_rows_that_need_not_be_stored_are_neither_missing_nor_wrong() -> None:
    truth = deltas(ROWS).with_columns(pl.Series(REQUIRED, [False, True, True, False, True]))
    assert compare(DELTAS, truth, deltas(ROWS)).is_none
    without = compare(DELTAS, truth, deltas([*ROWS[1:3], ROWS[4]]))
    assert without.is_none
    assert without.truth == 3
    assert compare(DELTAS, truth, deltas(ROWS[2:])).missing.rows() == [ROWS[1]]


def trades(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return shaped(TRADES, pl.DataFrame(rows, schema=list(TRADES.columns), orient="row", infer_schema_length=None))


def test_a_trade_stored_under_two_times_is_doubled() -> None:
    one = (1_000, "A", "t1", 4_000, 6_000, 100, "yes", False)
    other = (2_000, "A", "t2", 4_000, 6_000, 100, None, False)
    assert differences(trades([one, other]), trades([one, other]), TRADES) == (0, 0, 0)
    assert differences(trades([one, other]), trades([one, (5_000, *one[1:]), other]), TRADES) == (0, 1, 0)
    changed = (2_000, "A", "t2", 4_100, 5_900, 100, None, False)
    assert differences(trades([one, other]), trades([one, changed]), TRADES) == (0, 0, 1)


def test_tickers_are_a_set_but_a_second_row_of_one_is_doubled() -> None:
    body = {"price_dollars": "", "yes_bid_dollars": "0.4100", "volume_fp": "12.50", "dollar_volume": 7}
    row = {"exchange_us": 1_000, "ticker": "A", **ticker_columns(body)}
    assert (row["price_e4"], row["yes_bid_e4"], row["volume_e2"], row["dollar_volume"]) == (None, 4_100, 1_250, 7)
    frame = shaped(TICKERS, pl.DataFrame([row]))
    assert differences(pl.concat([frame, frame]), frame, TICKERS) == (0, 0, 0)
    assert differences(frame, pl.concat([frame, frame]), TICKERS) == (0, 1, 0)


def test_lifecycle_is_compared_by_content() -> None:
    schema = list(LIFECYCLE.columns)
    one = pl.DataFrame([("A", "created", "{}"), ("A", "determined", '{"x":1}')], schema=schema, orient="row")
    other = pl.DataFrame([("A", "created", "{}"), ("A", "determined", '{"x":2}')], schema=schema, orient="row")
    assert differences(one, other, LIFECYCLE) == (0, 0, 1)


@pytest.mark.parametrize("cuts", [(), (1_500,), (2_000, 3_000), (1_001, 2_001, 3_001)])
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ROWS, (0, 0, 0)),
        (ROWS[1:], (1, 0, 0)),
        ([*ROWS, ROWS[4]], (0, 1, 0)),
        ([*ROWS[:4], (3_000, "B", "no", 100, 101)], (0, 0, 1)),
        ([*ROWS[:4], (1_000, "B", "no", 100, 100)], (0, 0, 1)),  # stored under a time of another part
        ([*ROWS[:4], (-5, "B", "no", 100, 100)], (0, 0, 1)),
        ([*ROWS, (9_000_000, "Z", "yes", 1, 1)], (0, 0, 1)),
        ([], (5, 0, 0)),
    ],
)
def test_a_comparison_in_parts_finds_what_one_of_the_whole_does(
    cuts: tuple[int, ...], found: list[tuple[object, ...]], expected: tuple[int, int, int]
) -> None:
    comparison = Comparison(DELTAS)
    truth = deltas(ROWS).with_columns(pl.lit(value=True).alias(REQUIRED))
    stored = deltas(found) if found else deltas(ROWS).clear()
    edges = [-(2**62), *cuts, 2**62]
    for low, high in pairwise(edges):
        of_part = pl.col("exchange_us").is_between(low, high, closed="left")
        comparison.add(truth.filter(of_part), stored.filter(of_part))
    result = comparison.result()
    assert (result.missing.height, result.doubled.height, result.wrong.height) == expected
    assert (result.truth, result.found) == (5, len(found))


def test_a_trade_stored_again_in_another_part_is_doubled() -> None:
    one = (1_000, "A", "t1", 4_000, 6_000, 100, "yes", False)
    comparison = Comparison(TRADES)
    comparison.add(trades([one]).with_columns(pl.lit(value=True).alias(REQUIRED)), trades([one]))
    comparison.add(
        trades([one]).clear().with_columns(pl.lit(value=True).alias(REQUIRED)), trades([(90_000_000, *one[1:])])
    )
    result = comparison.result()
    assert (result.missing.height, result.doubled.height, result.wrong.height) == (0, 1, 0)
