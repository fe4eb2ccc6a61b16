"""Production's trades against the exchange's listing, summed up over hours for checks and schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

_MOST_MARKETS = 20
_SQL = load(Path(__file__).with_name("queries.sql"))


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
        rows = transaction.fetch_all(_SQL["sum_trade_checks"], {"hours": list(hours)})
        parameters = {"hours": list(hours), "most": _MOST_MARKETS}
        worst = transaction.fetch_all(_SQL["list_differing_markets"], parameters)
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
        rows = transaction.fetch_all(_SQL["list_closed_hours"], {"low": low, "high": high})
    return [row[0] for row in rows]


def list_days_to_compare(database: Database, low: datetime, high: datetime) -> list[datetime]:
    """List the UTC days of [low, high) with a closed hour that was not compared, or not wholly; ascending."""
    with database.transaction() as transaction:
        rows = transaction.fetch_all(_SQL["list_days_to_compare"], {"low": low, "high": high})
    return [row[0] for row in rows]


def count_trades(database: Database, low: datetime, high: datetime) -> tuple[int, int]:
    """Count production's trades with low <= exchange_ts < high: (rows, distinct (ticker, trade_id))."""
    with database.transaction() as transaction:
        row = transaction.fetch_one(_SQL["count_trades"], {"low": low, "high": high})
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _describe_market(hour: datetime, ticker: str, block: bool, unlisted: int, differing: int) -> str:
    market = f"{hour:%Y-%m-%d %H:00} {ticker}{' (block trades)' if block else ''}"
    return f"{market}: {unlisted} only in production, {differing} with other values"
