"""Rows that were published against rows that were stored: missing, doubled, wrong. Pure.

Tables are compared by their natural columns, as multisets, without any key of the platform: a copy more than was
published is doubled; a row that was never published is wrong, and if it is a published one with something changed,
that one is not counted as missing too.

A comparison takes a table in parts of time: what is equal is forgotten part by part, and only differences are kept. A
row whose time was changed differs in two parts, so differences are paired off at the end, over all parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from kalshi_platform.lab.proof.comparison.tables import AT, REQUIRED, ComparableTable


@dataclass(frozen=True)
class Difference:
    """How a stored table differs from the truth. The frames hold one row per difference, in the natural columns.

    `published`: the truth's rows of what seemed to be missing, all copies of them, with their time where it has one.
    """

    truth: int
    found: int
    missing: pl.DataFrame = field(repr=False)
    doubled: pl.DataFrame = field(repr=False)
    wrong: pl.DataFrame = field(repr=False)
    published: pl.DataFrame = field(repr=False, default_factory=pl.DataFrame)

    @property
    def is_none(self) -> bool:
        """Whether nothing is missing, doubled or wrong."""
        return self.missing.is_empty() and self.doubled.is_empty() and self.wrong.is_empty()


class Comparison:
    """One table of one store. `add` takes all rows of a stretch of time; `result` is asked once, at the end."""

    def __init__(self, table: ComparableTable) -> None:
        self._table = table
        self._truth = self._found = 0
        self._missing: list[pl.DataFrame] = []
        self._doubled: list[pl.DataFrame] = []
        self._unexpected: list[pl.DataFrame] = []
        self._published: list[pl.DataFrame] = []
        self._identities: list[pl.DataFrame] = []

    def add(self, truth: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
        """Compare one part; return what seems to be missing of it.

        `truth` has the table's columns and `required`: False for rows that may be stored or not (published before the
        run, or to others only). `found` has the table's columns.
        """
        table, columns = self._table, list(self._table.columns)
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
        self._truth += int(both["_required"].sum())
        self._found += found.height
        self._missing.append(missing)
        self._doubled.append(
            _repeated(more.filter(pl.col("_published") > 0), columns, pl.col("_stored") - pl.col("_published"))
        )
        self._unexpected.append(_repeated(more.filter(pl.col("_published") == 0), columns, pl.col("_stored")))
        kept = [*columns, AT] if AT in truth.columns else columns
        self._published.append(truth.select(kept).join(missing.unique(), on=columns, how="semi", nulls_equal=True))
        if table.identity:
            self._identities.append(truth.select(table.identity).unique())
        return missing

    def result(self) -> Difference:
        """Pair off what is a changed form of something missing; tell what is left."""
        table, columns = self._table, list(self._table.columns)
        missing, doubled, wrong = (pl.concat(each) for each in (self._missing, self._doubled, self._unexpected))
        missing, unpaired = _pair_off(table, missing, wrong)
        if table.identity and unpaired.height:
            # An unexpected row that bears the name of a row which is there as it should be is a second copy of it.
            again = unpaired.join(pl.concat(self._identities).unique(), on=table.identity, how="semi")
            doubled = pl.concat([doubled, again])
            wrong = wrong.join(again, on=columns, how="anti", nulls_equal=True)
        return Difference(self._truth, self._found, missing, doubled, wrong, pl.concat(self._published))


def compare(table: ComparableTable, truth: pl.DataFrame, found: pl.DataFrame) -> Difference:
    """Compare a whole table at once; the frames as for `Comparison.add`."""
    comparison = Comparison(table)
    comparison.add(truth, found)
    return comparison.result()


def _repeated(rows: pl.DataFrame, columns: Sequence[str], times: pl.Expr) -> pl.DataFrame:
    counted = rows.with_columns(_times=times).filter(pl.col("_times") > 0)
    return counted.select(pl.col(columns).repeat_by("_times").explode() if columns else [])


def _pair_off(
    table: ComparableTable, missing: pl.DataFrame, unexpected: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pair each unexpected row with the missing row that it is a changed form of; return what is left of both."""
    columns = list(table.columns)
    ways = [[name for name in columns if name != changed] for changed in columns]
    for way in [*ways, *(list(each) for each in table.likeness)]:
        if missing.is_empty() or unexpected.is_empty():
            break
        place = pl.int_range(pl.len()).over(way).alias("_place")
        left, right = missing.with_columns(place), unexpected.with_columns(place)
        on = [*way, "_place"]
        missing = left.join(right.select(on), on=on, how="anti", nulls_equal=True).select(columns)
        unexpected = right.join(left.select(on), on=on, how="anti", nulls_equal=True).select(columns)
    return missing, unexpected
