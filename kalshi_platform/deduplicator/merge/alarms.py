"""Alarms of the live merge: one row of `merge_alarms` per kind and subject."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kalshi_platform.storage.alert_store import record_alert
from kalshi_platform.storage.pool import Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

GATHERER_RESTARTED = "gatherer_restarted"
ROWS_REFUSED = "rows_refused"


@dataclass(frozen=True)
class MergeAlarm:
    """`times`: how often it was raised since `first_raised_at`; moments are of production's clock."""

    kind: str
    subject: str
    detail: str
    times: int
    first_raised_at: datetime
    last_raised_at: datetime


def raise_alarm(transaction: Transaction, kind: str, subject: str, detail: str) -> None:
    """Raise an alarm, or count it once more and replace its detail; people hear of it once an hour."""
    transaction.execute(_SQL["raise_alarm"], (kind, subject, detail))
    record_alert(transaction, kind, subject, detail)


def read_recent(transaction: Transaction) -> tuple[MergeAlarm, ...]:
    """Read alarms that were raised within the last day by production's clock (or seem to come from ahead of it)."""
    rows = transaction.fetch_all(_SQL["read_recent_alarms"])
    return tuple(MergeAlarm(*row) for row in rows)
