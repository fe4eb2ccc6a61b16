"""Finds hours that hold rows, and those of them that are to be closed."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from kalshi_platform.market.times import HOUR, hour_of
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

RETRY_MISSING_GATHERER_FOR = timedelta(days=7)
"""An hour that was closed without a gatherer is closed again when that one answers, up to this age of the hour …"""
RETRY_MISSING_GATHERER_AFTER = timedelta(minutes=50)
"""… and not more often than this, and ever more seldom as it grows older: after an eighth of its age."""
MAY_GROW_FOR = timedelta(minutes=125)
"""From the beginning of an hour: by then a quiet stream has shown something later."""
_SILENT_FOR = timedelta(minutes=10)


def find_active_hours(production: Database) -> list[datetime]:
    """Return hours that got rows of any table, ascending."""
    with production.transaction() as transaction:
        return [row[0] for row in transaction.fetch_all(_SQL["find_active_hours"])]


def find_hours_to_close(production: Database, now: datetime) -> list[datetime]:
    """Return ended hours that are to be closed, or closed again; ascending.

    They were never closed, got rows after their close, or were closed without a gatherer that answers again; also,
    once, those of which a quiet stream may have more to claim since (`may_grow`). A gatherer answers when the live
    merge notes no error of it, or when no merge has looked for a while.
    """
    with production.transaction() as transaction:
        rows = transaction.fetch_all(
            _SQL["find_hours_to_close"],
            {
                "now": now,
                "ended": now - HOUR,
                "may_grow_for": MAY_GROW_FOR,
                "oldest": now - RETRY_MISSING_GATHERER_FOR,
                "again": RETRY_MISSING_GATHERER_AFTER,
                "silent": _SILENT_FOR,
            },
        )
    return [row[0] for row in rows]


def find_silent_hours(production: Database, since: datetime, now: datetime) -> list[datetime]:
    """Return ended hours from the full hour `since` on that got no row and were never closed; ascending.

    None is older than the first hour with rows or a close: nobody recorded before. Their close says that nothing is
    covered, and brings the trades that the exchange lists of them.
    """
    with production.transaction() as transaction:
        rows = transaction.fetch_all(_SQL["find_silent_hours"], {"low": since, "ended": hour_of(now) - HOUR})
    return [row[0] for row in rows]


def find_hours_closed_since(production: Database, moment: datetime) -> list[datetime]:
    """Return hours whose latest close began at `moment` or later; ascending."""
    with production.transaction() as transaction:
        rows = transaction.fetch_all(_SQL["find_closed_hours"], (moment,))
    return [row[0] for row in rows]
