"""Alarms of the live merge: one row of `merge_alarms` per kind and subject."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kalshi_platform.storage.pool import Transaction

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
    """Raise an alarm, or count it once more and replace its detail."""
    transaction.execute(
        "INSERT INTO merge_alarms AS t (kind, subject, detail) VALUES (%s, %s, %s)"
        " ON CONFLICT (kind, subject) DO UPDATE SET detail = excluded.detail, times = t.times + 1,"
        " last_raised_at = clock_timestamp()",
        (kind, subject, detail),
    )


def read_recent(transaction: Transaction) -> tuple[MergeAlarm, ...]:
    """Read alarms that were raised within the last day by production's clock (or seem to come from ahead of it)."""
    rows = transaction.fetch_all(
        "SELECT kind, subject, detail, times, first_raised_at, last_raised_at FROM merge_alarms"
        " WHERE last_raised_at > clock_timestamp() - INTERVAL '1 day' ORDER BY kind, subject"
    )
    return tuple(MergeAlarm(*row) for row in rows)
