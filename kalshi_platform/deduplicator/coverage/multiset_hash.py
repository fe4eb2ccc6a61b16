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

from kalshi_platform.market.fold import SIDES

Hashes: TypeAlias = npt.NDArray[np.uint64]
Numbers: TypeAlias = npt.NDArray[np.integer]
_LEVELS = 2 * 10_001
_ROWS_AT_ONCE = 1 << 16
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
    return hash_changes(_levels_of(rows), rows[size].cast(pl.Int64).to_numpy())


def hash_changes(level: Numbers, size_e2: Numbers) -> Hashes:
    """The same of arrays; `level`: price_e4 × 2, and 1 more on the no side."""
    parts: Hashes = _WEIGHTS[level] * size_e2.view(np.uint64)
    return parts


def row_fingerprints(rows: pl.DataFrame) -> Hashes:
    """Return a hash of the identity of each delta: exchange_us, side, price_e4, delta_e2, occurrence."""
    us, delta, occurrence = (rows[name].cast(pl.Int64).to_numpy() for name in ("exchange_us", "delta_e2", "occurrence"))
    return fingerprint_deltas(us, _levels_of(rows), delta, occurrence)


def fingerprint_deltas(exchange_us: Numbers, level: Numbers, delta_e2: Numbers, occurrence: Numbers) -> Hashes:
    """The same of arrays; `level` as for hash_changes()."""
    found = np.empty(len(exchange_us), dtype=np.uint64)
    # Block by block: what is computed on the way stays small, and near the processor.
    for low in range(0, len(found), _ROWS_AT_ONCE):
        block = slice(low, low + _ROWS_AT_ONCE)
        part = splitmix64(_bits(exchange_us[block]))
        for column in (level, delta_e2, occurrence):
            part = splitmix64(part ^ _bits(column[block]))
        found[block] = part
    return found


def _levels_of(rows: pl.DataFrame) -> Numbers:
    levels: Numbers = rows["price_e4"].cast(pl.Int64).to_numpy() * 2 + (rows["side"] == "no").to_numpy()
    return levels


def _bits(values: Numbers) -> Hashes:
    return values.astype(np.int64, copy=False).view(np.uint64)


def book_hashes(books: pl.DataFrame) -> Hashes:
    """Return the hash of each whole book: yes_price_e4, yes_count_e2, no_price_e4, no_count_e2 as lists."""
    total = np.zeros(books.height, dtype=np.uint64)
    for number, side in enumerate(SIDES):
        prices, counts = (books[f"{side}_{what}"].cast(pl.List(pl.Int64)) for what in ("price_e4", "count_e2"))
        ends = prices.list.len().fill_null(0).cast(pl.Int64).to_numpy().cumsum()
        # An empty list explodes into a null.
        level, size = (each.explode().drop_nulls().to_numpy() for each in (prices, counts))
        sums = running_sums(hash_changes(level * 2 + number, size))
        total += np.diff(sums[np.concatenate([[0], ends])])
    return total


def running_sums(parts: Hashes) -> Hashes:
    """Return running sums with a leading zero: the sum of rows i … j - 1 is result[j] - result[i]."""
    running = np.zeros(len(parts) + 1, dtype=np.uint64)
    np.cumsum(parts, out=running[1:])
    return running
