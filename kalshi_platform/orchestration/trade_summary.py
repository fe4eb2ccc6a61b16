"""Production's trades against the exchange's listing, summed up over hours for checks and schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kalshi_platform.storage.pool import Database

_MOST_MARKETS = 20


@dataclass(frozen=True)
class TradeSummary:
    """Hours by the state of their comparison (`not checked` where there was none), and sums of trades over them.

    `worst`: market-hours in which production and the listing do not agree, the largest first, a line each.
    """

    hours: int
    states: Mapping[str, int]
    listed: int
    inserted: int
    only_in_production: int
    differing: int
    worst: tuple[str, ...]

    @property
    def proved(self) -> int:
        """Hours in which production holds exactly the listed trades."""
        return self.states.get("complete", 0) + self.states.get("filled", 0)

    @property
    def contradicted(self) -> int:
        """Hours in which production holds trades, or values, that the listing has not."""
        return self.states.get("differs", 0)


def summarize_trade_checks(database: Database, hours: Sequence[datetime]) -> TradeSummary:
    """Sum up the last comparison of each of these hours."""
    with database.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT coalesce(c.state, 'not checked'), count(*), sum(c.rest_count), sum(c.inserted),"
            " sum(c.only_in_production), sum(c.differing)"
            " FROM unnest(%s::timestamptz[]) AS h (hour) LEFT JOIN trade_checks c USING (hour) GROUP BY 1",
            (list(hours),),
        )
        worst = transaction.fetch_all(
            "SELECT hour, ticker, is_block_trade, only_in_production, differing FROM trade_parity"
            " WHERE hour = ANY (%s) AND state = 'differs'"
            " ORDER BY only_in_production + differing DESC, hour, ticker LIMIT %s",
            (list(hours), _MOST_MARKETS),
        )
    listed, inserted, unlisted, differing = (sum(int(row[column] or 0) for row in rows) for column in range(2, 6))
    return TradeSummary(
        hours=len(hours),
        states={str(row[0]): int(row[1]) for row in rows},
        listed=listed,
        inserted=inserted,
        only_in_production=unlisted,
        differing=differing,
        worst=tuple(_describe_market(*row) for row in worst),
    )


def list_closed_hours(database: Database, low: datetime, high: datetime) -> list[datetime]:
    """List the closed hours of [low, high)."""
    with database.transaction() as transaction:
        rows = transaction.fetch_all("SELECT hour FROM hour_closes WHERE hour >= %s AND hour < %s", (low, high))
    return [row[0] for row in rows]


def list_days_to_compare(database: Database, low: datetime, high: datetime) -> list[datetime]:
    """List the UTC days of [low, high) with a closed hour that was not compared, or not wholly; ascending."""
    with database.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT DISTINCT date_trunc('day', h.hour, 'UTC') FROM hour_closes h LEFT JOIN trade_checks c USING (hour)"
            " WHERE h.hour >= %s AND h.hour < %s AND coalesce(c.state, 'not checked') IN ('not checked', 'partial')"
            " ORDER BY 1",
            (low, high),
        )
    return [row[0] for row in rows]


def count_trades(database: Database, low: datetime, high: datetime) -> tuple[int, int]:
    """Count production's trades with low <= exchange_ts < high: (rows, distinct (ticker, trade_id))."""
    with database.transaction() as transaction:
        row = transaction.fetch_one(
            "SELECT count(*), count(DISTINCT (ticker, trade_id)) FROM trades"
            " WHERE exchange_ts >= %(low)s AND exchange_ts < %(high)s",
            {"low": low, "high": high},
        )
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _describe_market(hour: datetime, ticker: str, block: bool, unlisted: int, differing: int) -> str:
    market = f"{hour:%Y-%m-%d %H:00} {ticker}{' (block trades)' if block else ''}"
    return f"{market}: {unlisted} only in production, {differing} with other values"
