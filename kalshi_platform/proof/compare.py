"""Rows that were published against rows that were stored: missing, doubled, wrong. Pure.

Tables are compared by their natural columns, as multisets, without any key of the platform: a copy more than was
published is doubled; a row that was never published is wrong, and if it is a published one with something changed,
that one is not counted as missing too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from kalshi_platform.proof.tables import REQUIRED, NaturalTable


@dataclass(frozen=True)
class Difference:
    """How a stored table differs from the truth. The frames hold one row per difference, in the natural columns."""

    truth: int
    found: int
    missing: pl.DataFrame = field(repr=False)
    doubled: pl.DataFrame = field(repr=False)
    wrong: pl.DataFrame = field(repr=False)

    @property
    def is_none(self) -> bool:
        return self.missing.is_empty() and self.doubled.is_empty() and self.wrong.is_empty()


def compare(table: NaturalTable, truth: pl.DataFrame, found: pl.DataFrame) -> Difference:
    """Compare stored rows with published ones.

    `truth` has the table's columns and `required`: False for rows that may be stored or not (published before the run,
    or to others only). `found` has the table's columns.
    """
    columns = list(table.columns)
    published = truth.group_by(columns).agg(
        pl.len().alias("_published"), pl.col(REQUIRED).sum().cast(pl.UInt32).alias("_required")
    )
    if table.is_set:
        published = published.with_columns(
            pl.col("_published").clip(upper_bound=1), pl.col("_required").clip(upper_bound=1)
        )
    stored = found.select(columns).group_by(columns).agg(pl.len().alias("_stored"))
    both = published.join(stored, on=columns, how="full", nulls_equal=True, coalesce=True).with_columns(
        pl.col("_published", "_required", "_stored").fill_null(0).cast(pl.Int64)
    )
    missing = _repeated(both, columns, pl.col("_required") - pl.col("_stored"))
    more = both.filter(pl.col("_stored") > pl.col("_published"))
    doubled = _repeated(more.filter(pl.col("_published") > 0), columns, pl.col("_stored") - pl.col("_published"))
    wrong = _repeated(more.filter(pl.col("_published") == 0), columns, pl.col("_stored"))
    missing, unpaired = _pair_off(table, missing, wrong)
    if table.identity and unpaired.height:
        # A stranger that bears the name of a row which is there as it should be is a second copy of it.
        again = unpaired.join(truth.select(table.identity).unique(), on=table.identity, how="semi")
        doubled = pl.concat([doubled, again])
        wrong = wrong.join(again, on=columns, how="anti", nulls_equal=True)
    return Difference(int(both["_required"].sum()), found.height, missing, doubled, wrong)


def _repeated(rows: pl.DataFrame, columns: Sequence[str], times: pl.Expr) -> pl.DataFrame:
    counted = rows.with_columns(_times=times).filter(pl.col("_times") > 0)
    return counted.select(pl.col(columns).repeat_by("_times").explode() if columns else [])


def _pair_off(table: NaturalTable, missing: pl.DataFrame, strangers: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take for each stranger the missing row that it is a changed form of; return both rests."""
    columns = list(table.columns)
    ways = [[name for name in columns if name != changed] for changed in columns]
    for way in [*ways, *(list(each) for each in table.likeness)]:
        if missing.is_empty() or strangers.is_empty():
            break
        place = pl.int_range(pl.len()).over(way).alias("_place")
        left, right = missing.with_columns(place), strangers.with_columns(place)
        on = [*way, "_place"]
        missing = left.join(right.select(on), on=on, how="anti", nulls_equal=True).select(columns)
        strangers = right.join(left.select(on), on=on, how="anti", nulls_equal=True).select(columns)
    return missing, strangers
