"""Hashes books and sets of rows to one number each, so that comparing millions costs an addition each. Pure.

The sum of a book is Σ size × weight(side, price) modulo 2^64, with weights that look random: a delta adds its own part
to it, whatever the book is, and two books that differ have equal sums once in about 2^60 times. The content of a set
of deltas is the sum of the fingerprints of its rows. All arithmetic wraps around.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from kalshi_platform.market.fold import LEVEL_TYPES, explode_levels

Hashes: TypeAlias = npt.NDArray[np.uint64]
_LEVELS = 2 * 10_001
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(values: npt.NDArray[np.uint64]) -> Hashes:
    """Spread 64-bit values over 64 bits, one to one (the finalizer of splitmix64)."""
    result = values + _GOLDEN
    result = (result ^ (result >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    result = (result ^ (result >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    spread: Hashes = result ^ (result >> np.uint64(31))
    return spread


_WEIGHTS = splitmix64(np.arange(_LEVELS, dtype=np.uint64)) | np.uint64(1)


def delta_hashes(rows: pl.DataFrame, size: str = "delta_e2") -> Hashes:
    """Return what each row (side, price_e4 and `size`) adds to the hash of its book."""
    level = rows["price_e4"].cast(pl.Int64).to_numpy() * 2 + (rows["side"] == "no").to_numpy()
    parts: Hashes = _WEIGHTS[level] * rows[size].cast(pl.Int64).to_numpy().view(np.uint64)
    return parts


def row_fingerprints(rows: pl.DataFrame) -> Hashes:
    """Return a hash of the identity of each delta: exchange_us, side, price_e4, delta_e2, occurrence."""
    level = rows["price_e4"].cast(pl.Int64).to_numpy() * 2 + (rows["side"] == "no").to_numpy()
    found = splitmix64(rows["exchange_us"].cast(pl.Int64).to_numpy().view(np.uint64))
    for column in (level, rows["delta_e2"].cast(pl.Int64).to_numpy(), rows["occurrence"].cast(pl.Int64).to_numpy()):
        found = splitmix64(found ^ column.view(np.uint64))
    return found


def book_hashes(books: pl.DataFrame) -> Hashes:
    """Return the hash of each whole book: yes_price_e4, yes_count_e2, no_price_e4, no_count_e2 as lists."""
    total = np.zeros(books.height, dtype=np.uint64)
    levels = explode_levels(books.select(LEVEL_TYPES.keys()).with_row_index("_row"), ("_row",))
    np.add.at(total, levels["_row"].to_numpy(), delta_hashes(levels, "count_e2"))
    return total


def running_sums(parts: Hashes) -> Hashes:
    """Return running sums with a leading zero: the sum of rows i … j - 1 is result[j] - result[i]."""
    running = np.zeros(len(parts) + 1, dtype=np.uint64)
    np.cumsum(parts, out=running[1:])
    return running
