"""A lake's store that fails, and a look at a partition as other programs see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import polars as pl

from kalshi_platform.errors import LakeUnavailable
from kalshi_platform.lake.store.objects import ObjectStore

_CHANGES = frozenset({"put_files", "write", "delete"})


class FailingStore:
    """Passes everything on to `store`, but fails at the `fails_at`th change (0: never), before it does anything.

    `after_change` is called after each change that was made.
    """

    def __init__(self, store: ObjectStore, fails_at: int, after_change: Callable[[], None]) -> None:
        self._store = store
        self._left = fails_at
        self._after_change = after_change

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in _CHANGES:
            return method

        def change(*args: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise LakeUnavailable(f"the lake's store fails, as the proof wants it, at {name} {args[0]}")
            answer = method(*args)
            self._after_change()
            return answer

        return change

    def as_store(self) -> ObjectStore:
        """Return the store itself, for a type checker that cannot see through it."""
        return cast(ObjectStore, self)


def rows_of_glob(folder: Path) -> int:
    """Rows that any program finds in a partition's folder by the pattern of its files; -1 where one cannot be read."""
    scans = [
        pl.scan_parquet(file, hive_partitioning=False, glob=False) for file in sorted(folder.glob("part-*.parquet"))
    ]
    try:
        return sum(int(scan.select(pl.len()).collect().item()) for scan in scans)
    except (OSError, pl.exceptions.PolarsError):
        return -1
