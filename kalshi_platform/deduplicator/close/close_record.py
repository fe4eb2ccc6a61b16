"""What a close did, and its row in `hour_closes`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from kalshi_platform.deduplicator.close.close_store import Alarm
from kalshi_platform.deduplicator.close.hour_summary import NOTHING_OPEN, CoverageShare
from kalshi_platform.deduplicator.close.previous_close import PreviousClose
from kalshi_platform.deduplicator.trades.reconcile_trades import TradeCheck
from kalshi_platform.storage.pool import Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True)
class HourClose:
    """What a close did. `rows`: rows of the hour in production now; `inserted`: those that this close brought.

    `final`: whether the hour is marked as closed. `trades`: how its trades compare with the exchange's listing.
    `coverage`: how much of the markets' open time is covered, from the one definition of the coverage share.
    `dropped`: tables of which production no longer has all rows that were counted before; where books rest on them,
    claims, coverage and proofs of the hour stay as they were. `gatherers_incomplete`: tables of which a gatherer no
    longer has all that it recorded of the hour; what it claimed stays.
    `failed`: markets whose books or claims did not come out; `proved`: how many were checked and did; `unproved`: of
    how many nothing could be checked. `alarms`: (kind, subject, detail), also in production.
    """

    hour: datetime
    rows: Mapping[str, int]
    checkpoints: int
    gatherers_read: tuple[str, ...]
    gatherers_missed: tuple[str, ...]
    inserted: Mapping[str, int] = field(default_factory=dict)
    final: bool = True
    trades: TradeCheck | None = None
    coverage: CoverageShare = NOTHING_OPEN
    failed: tuple[str, ...] = ()
    proved: int = 0
    unproved: int = 0
    alarms: tuple[Alarm, ...] = ()
    dropped: tuple[str, ...] = ()
    gatherers_incomplete: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def record_close(
    transaction: Transaction,
    closed: HourClose,
    close_no: int,
    closed_at: datetime,
    previous: PreviousClose,
    *,
    may_grow: bool,
) -> None:
    """Write the close to `hour_closes`: the hour is closed then. `may_grow`: a later close may claim more of it."""
    # What was counted before rows were dropped stays: it is how many there should be.
    counted = {table: count for table, count in closed.rows.items() if table not in closed.dropped}
    rows = {table: count for table, count in (previous.rows or {}).items() if table in closed.dropped} | counted
    kept = previous.keeps_verification(closed.dropped)
    # Without new rows the hour is what it was, and keeps its close_id: exports of it are not out of date.
    brought = previous.is_reopened or any(closed.inserted.values())
    brought = brought or (closed.trades is not None and closed.trades.inserted > 0)
    transaction.execute(
        _SQL["record_close"],
        {
            "hour": closed.hour,
            "close_no": close_no,
            "closed_at": closed_at,
            "rows": json.dumps(rows),
            "checkpoints": closed.checkpoints,
            "read": list(closed.gatherers_read),
            "missed": list(closed.gatherers_missed),
            "incomplete": sorted(closed.gatherers_incomplete),
            "may_grow": may_grow,
            "markets": closed.coverage.markets,
            "open_us": closed.coverage.open_us,
            "covered_us": closed.coverage.covered_us,
            "kept": kept,
            "unchanged": kept and not brought,
        },
    )
