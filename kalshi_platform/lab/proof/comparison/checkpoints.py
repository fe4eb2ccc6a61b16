"""Every stored checkpoint against the true book at its time. Pure.

The true book is the exchange's first one and the deltas that it published since, those of the checkpoint's own time
included. Parts of time come in order; checkpoints are judged in the part in which they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from kalshi_platform.lab.proof.comparison.books import SIDES, exploded, summed
from kalshi_platform.market.intervals import Interval

_AT_ONCE = 200
"""Checkpoints of one part that are judged together: each is joined with its market's deltas."""


@dataclass(frozen=True)
class CheckpointsFound:
    """How many checkpoints were compared; `wrong`: (ticker, checkpoint in µs of exchange time)."""

    compared: int
    wrong: tuple[tuple[str, int], ...] = ()


class CheckpointCheck:
    """Compares the checkpoints of one store with the truth."""

    def __init__(self, first_books: pl.DataFrame, checkpoints: pl.DataFrame) -> None:
        """`first_books`: ticker, side, price_e4, count_e2 before any delta. `checkpoints` as for `books.Fold`."""
        self._state = summed(first_books)
        self._checkpoints = checkpoints.with_columns(
            checkpoint_us=pl.col("checkpoint_ts").dt.epoch("us")
        ).with_row_index("_checkpoint")
        self._compared = 0
        self._wrong: list[tuple[str, int]] = []

    def add(self, part: Interval, deltas: pl.DataFrame) -> None:
        """Take all published deltas of a part of time, in natural columns; parts come in order."""
        moved = deltas.select("exchange_us", "ticker", "side", "price_e4", pl.col("delta_e2").alias("count_e2"))
        here = self._checkpoints.filter(pl.col("checkpoint_us").is_between(*part, closed="left"))
        for first in range(0, here.height, _AT_ONCE):
            self._judge(here[first : first + _AT_ONCE], moved)
        self._state = summed(pl.concat([self._state, moved.select(self._state.columns)]))

    def result(self) -> CheckpointsFound:
        """What was found."""
        return CheckpointsFound(self._compared, tuple(sorted(self._wrong)))

    def _judge(self, checkpoints: pl.DataFrame, moved: pl.DataFrame) -> None:
        level = ["_checkpoint", "side", "price_e4"]
        named = checkpoints.select("_checkpoint", "ticker", "checkpoint_us")
        until = named.join(moved, on="ticker").filter(pl.col("exchange_us") <= pl.col("checkpoint_us"))
        columns = [*level, "count_e2"]
        true = _not_empty(
            pl.concat([named.join(self._state, on="ticker").select(columns), until.select(columns)]), level
        )
        told = _not_empty(
            pl.concat([exploded(checkpoints, side, "_checkpoint").select(columns) for side in SIDES]), level
        )
        differing = pl.concat([true.join(told, on=columns, how="anti"), told.join(true, on=columns, how="anti")])
        wrong = named.join(differing.select("_checkpoint").unique(), on="_checkpoint", how="semi")
        self._compared += checkpoints.height
        self._wrong += wrong.select("ticker", "checkpoint_us").iter_rows()


def _not_empty(levels: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    return levels.group_by(key).agg(pl.col("count_e2").sum()).filter(pl.col("count_e2") != 0)
