"""Every stored anchor against the true book at its time. Pure.

The true book is the exchange's first one and the deltas that it published since, those of the anchor's own time
included. Parts of time come in order; anchors are judged in the part in which they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from kalshi_platform.lab.proof.comparison.books import SIDES, exploded, summed
from kalshi_platform.market.intervals import Interval

_AT_ONCE = 200
"""Anchors of one part that are judged together: each is joined with its market's deltas."""


@dataclass(frozen=True)
class AnchorsFound:
    """How many anchors were compared; `wrong`: (ticker, anchor in µs of exchange time)."""

    compared: int
    wrong: tuple[tuple[str, int], ...] = ()


class AnchorCheck:
    """Compares the anchors of one store with the truth."""

    def __init__(self, first_books: pl.DataFrame, anchors: pl.DataFrame) -> None:
        """`first_books`: ticker, side, price_e4, count_e2 before any delta. `anchors` as for `books.Fold`."""
        self._state = summed(first_books)
        self._anchors = anchors.with_columns(anchor_us=pl.col("anchor_ts").dt.epoch("us")).with_row_index("_anchor")
        self._compared = 0
        self._wrong: list[tuple[str, int]] = []

    def add(self, part: Interval, deltas: pl.DataFrame) -> None:
        """Take all published deltas of a part of time, in natural columns; parts come in order."""
        moved = deltas.select("exchange_us", "ticker", "side", "price_e4", pl.col("delta_e2").alias("count_e2"))
        here = self._anchors.filter(pl.col("anchor_us").is_between(*part, closed="left"))
        for first in range(0, here.height, _AT_ONCE):
            self._judge(here[first : first + _AT_ONCE], moved)
        self._state = summed(pl.concat([self._state, moved.select(self._state.columns)]))

    def result(self) -> AnchorsFound:
        """What was found."""
        return AnchorsFound(self._compared, tuple(sorted(self._wrong)))

    def _judge(self, anchors: pl.DataFrame, moved: pl.DataFrame) -> None:
        level = ["_anchor", "side", "price_e4"]
        named = anchors.select("_anchor", "ticker", "anchor_us")
        until = named.join(moved, on="ticker").filter(pl.col("exchange_us") <= pl.col("anchor_us"))
        columns = [*level, "count_e2"]
        true = _not_empty(
            pl.concat([named.join(self._state, on="ticker").select(columns), until.select(columns)]), level
        )
        told = _not_empty(pl.concat([exploded(anchors, side, "_anchor").select(columns) for side in SIDES]), level)
        differing = pl.concat([true.join(told, on=columns, how="anti"), told.join(true, on=columns, how="anti")])
        wrong = named.join(differing.select("_anchor").unique(), on="_anchor", how="semi")
        self._compared += anchors.height
        self._wrong += wrong.select("ticker", "anchor_us").iter_rows()


def _not_empty(levels: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    return levels.group_by(key).agg(pl.col("count_e2").sum()).filter(pl.col("count_e2") != 0)
