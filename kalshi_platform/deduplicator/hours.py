"""Which hours hold rows, and which of them are to be closed."""

from __future__ import annotations

from datetime import datetime, timedelta

from kalshi_platform.storage.pool import Database

HOUR = timedelta(hours=1)


def active_hours(production: Database) -> list[datetime]:
    """Hours that got rows of any table, ascending."""
    with production.transaction() as transaction:
        return [row[0] for row in transaction.fetch_all("SELECT DISTINCT hour FROM hour_activity ORDER BY hour")]


def hours_to_close(production: Database, now: datetime) -> list[datetime]:
    """Ended hours that were never closed, or got rows after their close; ascending."""
    with production.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT a.hour FROM hour_activity a LEFT JOIN hour_closes c USING (hour) WHERE a.hour <= %s"
            " GROUP BY a.hour, c.closed_at HAVING c.closed_at IS NULL OR max(a.last_merged_at) > c.closed_at"
            " ORDER BY a.hour",
            (now - HOUR,),
        )
    return [row[0] for row in rows]
