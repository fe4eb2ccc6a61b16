"""Checkpoints against the true book at the end of their time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import polars as pl
import pytest

from kalshi_platform.lab.proof.comparison.checkpoints import CheckpointCheck
from kalshi_platform.lab.proof.comparison.tables import DELTAS

FIRST = pl.DataFrame(
    {"ticker": ["A"], "side": ["yes"], "price_e4": [5_000], "count_e2": [100]},
    schema={"ticker": pl.String, "side": pl.String, "price_e4": pl.Int64, "count_e2": pl.Int64},
)
MOVED = pl.DataFrame(
    [
        (10, "A", "yes", 5_000, 50),
        (20, "A", "no", 4_000, 7),
        (20, "A", "yes", 5_000, -150),  # of one time with the one before: books exist only after both
        (30, "A", "no", 4_000, 1),
        (30, "B", "no", 1, 1),
    ],
    schema=list(DELTAS.columns),
    orient="row",
)
Levels = list[tuple[int, int]]


def checkpoints(*rows: tuple[int, str, Levels, Levels]) -> pl.DataFrame:
    lists = {name: pl.List(pl.Int64) for name in ("yes_price_e4", "yes_count_e2", "no_price_e4", "no_count_e2")}
    return pl.DataFrame(
        [
            (at, ticker, *([level[place] for level in side] for side in (yes, no) for place in (0, 1)))
            for at, ticker, yes, no in rows
        ],
        schema={"checkpoint_ts": pl.Int64, "ticker": pl.String, **lists},
        orient="row",
    ).with_columns(pl.col("checkpoint_ts").cast(pl.Datetime("us", "UTC")))


def wrong(told: pl.DataFrame, cuts: tuple[int, ...] = ()) -> tuple[tuple[str, int], ...]:
    check = CheckpointCheck(FIRST, told)
    edges = [-(2**62), *cuts, 2**62]
    for low, high in pairwise(edges):
        check.add((low, high), MOVED.filter(pl.col("exchange_us").is_between(low, high, closed="left")))
    found = check.result()
    assert found.compared == told.height
    return found.wrong


RIGHT: tuple[tuple[Any, ...], ...] = (
    (5, "A", [(5_000, 100)], []),
    (10, "A", [(5_000, 150)], []),
    (15, "A", [(5_000, 150)], []),
    (20, "A", [], [(4_000, 7)]),
    (99, "A", [], [(4_000, 8)]),
    (30, "B", [], [(1, 1)]),
    (29, "B", [], []),
)


@pytest.mark.parametrize("cuts", [(), (10,), (11, 20, 21), (5, 6, 31)])
def test_right_checkpoints_are_right_in_any_parts(cuts: tuple[int, ...]) -> None:
    assert wrong(checkpoints(*RIGHT), cuts) == ()


@pytest.mark.parametrize(
    "bad",
    [
        (9, "A", [(5_000, 150)], []),  # a moment early
        (20, "A", [(5_000, 150)], []),  # its own time left out
        (20, "A", [(5_000, 150)], [(4_000, 7)]),  # half of its own time
        (30, "A", [(4_000, 8)], []),  # the other side
        (30, "A", [], []),
        (30, "A", [], [(4_000, 8), (4_001, 1)]),
        (29, "B", [], [(1, 1)]),
        (30, "C", [(1, 1)], []),
    ],
)
def test_a_wrong_one_among_right_ones_is_named(bad: tuple[int, str, Levels, Levels]) -> None:
    assert wrong(checkpoints(*RIGHT, bad), (15, 25)) == ((bad[1], bad[0]),)
