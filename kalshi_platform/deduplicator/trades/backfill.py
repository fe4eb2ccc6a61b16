"""Backfills trades of any past day from the exchange's listing alone.

No gatherer needs to have recorded the day, or to be there. Every hour is a step of its own, finished in one production
transaction: what was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.trades.reconcile_trades import LISTING_DELAY, TradeCheck, check_trades
from kalshi_platform.deduplicator.trades.rest_trades import TradeLister
from kalshi_platform.market.times import HOUR
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.progress import report_each
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

_log = event_logger(__name__)


@dataclass(frozen=True)
class TradesBackfill:
    """What a backfill did. `skipped`: hours left out, because they were done already or are not over."""

    checks: tuple[TradeCheck, ...]
    skipped: tuple[datetime, ...]

    def total(self, figure: str) -> int:
        """The sum of a count of TradeCheck over all hours, e.g. "inserted"."""
        return sum(getattr(check, figure) for check in self.checks)

    @property
    def unproved(self) -> tuple[TradeCheck, ...]:
        """Checks after which production and the listing are not the same."""
        return tuple(check for check in self.checks if not check.is_proved)


def list_hours(day: date) -> list[datetime]:
    """Return the 24 UTC hours of a day."""
    first = datetime.combine(day, time(), UTC)
    return [first + number * HOUR for number in range(24)]


def backfill_trades(
    production_url: str,
    rest: TradeLister,
    hours: Iterable[datetime],
    clock: Clock,
    bounds: PartitionBounds,
    *,
    done_since: datetime | None = None,
    on_check: Callable[[TradeCheck], None] = lambda _: None,
) -> TradesBackfill:
    """Check the trades of `hours` with the exchange, hour by hour, and insert what production lacks.

    Rows that come reopen a closed hour, so that it is closed and exported again. Hours that a check has found complete
    since `done_since` are left out, and so are hours that are not over. Raises the errors of the exchange,
    SchemaMismatch, OutOfPartitionBounds, LockHeld, DatabaseUnavailable; finished hours stay finished.
    """
    database = Database(production_url, name="production")
    try:
        check(database, "production")
        keeper = PartitionKeeper(database, bounds, clock)
        wanted = sorted(hours)
        done = _read_done_hours(database, wanted, done_since)
        checks, skipped = [], []
        for hour in report_each("hours compared", wanted):
            if hour in done or clock.now() < hour + HOUR + LISTING_DELAY:
                skipped.append(hour)
                continue
            checks.append(check_trades(database, rest, hour, keeper))
            _log.info("trades_checked", hour=hour, state=checks[-1].state, inserted=checks[-1].inserted)
            on_check(checks[-1])
        return TradesBackfill(tuple(checks), tuple(skipped))
    finally:
        database.dispose()


def list_days(first: date, last: date) -> list[date]:
    """Return the days from `first` to `last`, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _read_done_hours(database: Database, hours: list[datetime], since: datetime | None) -> set[datetime]:
    if since is None or not hours:
        return set()
    span = {"low": hours[0], "high": hours[-1] + HOUR, "since": since}
    with database.transaction() as transaction:
        return {row[0] for row in transaction.fetch_all(_SQL["find_checked_hours"], span)}
