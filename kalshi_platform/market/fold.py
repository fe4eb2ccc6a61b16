"""Folds order books: a book plus deltas gives a later book. Pure.

The one definition of the fold. A *level* is one price of one side of a book, a delta is added to the size of its level,
and a level of size 0 is no part of the book. A size below zero shows that a delta was lost. Deltas of one exchange time
apply together: a book at a moment holds every delta with exchange_us ≤ that moment.

Frames: `explode_levels`, `sum_levels` and `collect_levels` use books as rows with four lists (LEVEL_TYPES). Arrays:
`books_at` gives the books of many markets at many moments at once; there a *line* is one market followed from one book
onwards, under a number of the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

Ints: TypeAlias = npt.NDArray[np.integer]
SIDES = ("yes", "no")
LEVEL_TYPES = {
    "yes_price_e4": pl.List(pl.Int32),
    "yes_count_e2": pl.List(pl.Int64),
    "no_price_e4": pl.List(pl.Int32),
    "no_count_e2": pl.List(pl.Int64),
}
"""The columns of a book: prices and sizes of both sides, as tables and the lake hold them."""
_MOST_PRICE_E4 = 10_000
# Price grids that Kalshi has used, coarsest first: fewer possible levels make a smaller table.
_GRIDS_E4 = (100, 10, 1)
_TABLE_CELLS = 1 << 25


class Changes(NamedTuple):
    """Holds deltas, or the levels of starting books, as arrays of one length; `side` is 0 for yes, 1 for no."""

    line: Ints
    side: Ints
    price_e4: Ints
    size_e2: Ints

    def where(self, chosen: npt.NDArray[np.bool_]) -> Changes:
        """Return the changes at the chosen places."""
        return Changes(*(column[chosen] for column in self))


class BookTable(NamedTuple):
    """Holds the levels of many books at many moments, ascending by (line, side, price_e4).

    `sizes[k, i]` is the size of level i at the k-th moment, 0 if it is no part of the book. A size below zero shows
    that a delta was lost.
    """

    line: Ints
    side: Ints
    price_e4: Ints
    sizes: npt.NDArray[np.int64]


def explode_levels(books: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Return the levels of books: `key`, side, price_e4, count_e2, a row per level. `books`: `key` and LEVEL_TYPES."""
    return pl.concat(
        books.select(
            *key,
            pl.lit(side).alias("side"),
            pl.col(f"{side}_price_e4").alias("price_e4"),
            pl.col(f"{side}_count_e2").alias("count_e2"),
        )
        .explode("price_e4", "count_e2")
        .drop_nulls()
        for side in SIDES
    )


def sum_levels(levels: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Fold levels and deltas (`key`, side, price_e4, count_e2) into levels, by key and side and ascending by price."""
    by = (*key, "side", "price_e4")
    return levels.group_by(by).agg(pl.col("count_e2").sum()).filter(pl.col("count_e2") != 0).sort(by)


def collect_levels(books: pl.DataFrame, levels: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Add LEVEL_TYPES to `books` from their levels (as sum_levels gives them); one without a level gets empty lists."""
    for side in SIDES:
        lists = (
            levels.filter(pl.col("side") == side)
            .group_by(key, maintain_order=True)
            .agg(pl.col("price_e4").alias(f"{side}_price_e4"), pl.col("count_e2").alias(f"{side}_count_e2"))
        )
        books = books.join(lists, on=key, how="left")
    return books.with_columns(pl.col(name).fill_null([]).cast(kind) for name, kind in LEVEL_TYPES.items())


def books_at(start: Changes, deltas: Changes, exchange_us: Ints, moments_us: Ints) -> BookTable:
    """Return every line's book at each of `moments_us` (ascending): `start` plus the deltas up to it.

    `exchange_us` holds the times of `deltas`; their order does not matter, ascending times are faster. Raises
    ValueError for a price that no contract can have.
    """
    grid = _grid_of(start.price_e4, deltas.price_e4)
    lines = int(max(start.line.max(initial=-1), deltas.line.max(initial=-1))) + 1
    per_line = 2 * (_MOST_PRICE_E4 // grid + 1)
    at_once = max(1, _TABLE_CELLS // per_line)
    if lines <= at_once:
        return _fold(start, deltas, exchange_us, moments_us, grid, (0, lines))
    parts = []
    for low in range(0, lines, at_once):
        high = min(low + at_once, lines)
        mine = (deltas.line >= low) & (deltas.line < high)
        opened = start.where((start.line >= low) & (start.line < high))
        parts.append(_fold(opened, deltas.where(mine), exchange_us[mine], moments_us, grid, (low, high)))
    line, side, price, sizes = zip(*parts, strict=True)
    return BookTable(np.concatenate(line), np.concatenate(side), np.concatenate(price), np.concatenate(sizes, axis=1))


def _fold(
    start: Changes, deltas: Changes, exchange_us: Ints, moments_us: Ints, grid: int, lines: tuple[int, int]
) -> BookTable:
    low, high = lines
    prices = _MOST_PRICE_E4 // grid + 1
    opened, changed = _codes(start, grid, low), _codes(deltas, grid, low)
    used = np.zeros((high - low) * 2 * prices, dtype=np.bool_)
    used[opened] = True
    used[changed] = True
    codes = np.flatnonzero(used)
    place = np.empty(len(used), dtype=np.int32)
    place[codes] = np.arange(len(codes), dtype=np.int32)
    sizes = np.empty((len(moments_us), len(codes)), dtype=np.int64)
    running = np.zeros(len(codes), dtype=np.int64)
    np.add.at(running, place[opened], start.size_e2)
    for moment, (rows, order) in enumerate(_steps(exchange_us, moments_us)):
        chosen = slice(*rows) if order is None else order[slice(*rows)]
        np.add.at(running, place[changed[chosen]], deltas.size_e2[chosen])
        sizes[moment] = running
    return BookTable(codes // (2 * prices) + low, codes // prices % 2, codes % prices * grid, sizes)


def _steps(exchange_us: Ints, moments_us: Ints) -> list[tuple[tuple[int, int], Ints | None]]:
    """Return the rows between two moments: ranges of the rows, or of an order of them where times are not ascending."""
    order: Ints | None = None
    if len(exchange_us) > 1 and not bool(np.all(exchange_us[1:] >= exchange_us[:-1])):
        order = np.argsort(exchange_us, kind="stable")
        exchange_us = exchange_us[order]
    ends = np.searchsorted(exchange_us, moments_us, side="right").tolist()
    return [((first, last), order) for first, last in zip([0, *ends], ends, strict=False)]


def _codes(changes: Changes, grid: int, low: int) -> npt.NDArray[np.int32]:
    # A table has at most _TABLE_CELLS places.
    prices = _MOST_PRICE_E4 // grid + 1
    codes: npt.NDArray[np.int32] = (changes.line - low).astype(np.int32)
    codes *= 2
    codes += changes.side
    codes *= prices
    codes += changes.price_e4.astype(np.int32, copy=False) if grid == 1 else changes.price_e4.astype(np.int32) // grid
    return codes


def _grid_of(*prices: Ints) -> int:
    for each in prices:
        if len(each) and not 0 <= int(each.min()) <= int(each.max()) <= _MOST_PRICE_E4:
            raise ValueError(f"a price lies outside 0 … {_MOST_PRICE_E4}")
    return next(grid for grid in _GRIDS_E4 if all(not np.any(each % grid) for each in prices))
