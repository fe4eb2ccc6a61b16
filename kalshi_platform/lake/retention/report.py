"""What a run of retention did, or would do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple


class Outcome(NamedTuple):
    """One old partition [low, high) of a table: it went (or would go), or `refused` says why not.

    `database`: `production` or the name of a gatherer. `rows`, `bytes`: what it holds; bytes with indexes.
    """

    database: str
    table: str
    low: datetime
    high: datetime
    rows: int
    bytes: int
    refused: str | None = None


class Cleared(NamedTuple):
    """Lines of a ledger or record table that went (or would go)."""

    database: str
    table: str
    rows: int


class RetentionReport(NamedTuple):
    """What came of old partitions, by database, table and time, and of ledgers.

    `unreachable`: gatherers that gave no answer, and databases during whose turn the lake gave none; and why.
    """

    dry_run: bool
    partitions: tuple[Outcome, ...] = ()
    cleared: tuple[Cleared, ...] = ()
    unreachable: Mapping[str, str] = {}

    @property
    def gone(self) -> tuple[Outcome, ...]:
        """Partitions that went, or would go."""
        return tuple(each for each in self.partitions if each.refused is None)

    @property
    def refused(self) -> tuple[Outcome, ...]:
        """Partitions that are old enough and stay."""
        return tuple(each for each in self.partitions if each.refused is not None)
