"""Reconciles trades of production with the exchange's own listing, hour by hour.

What is missing is inserted, and every listed trade gets the exchange's time to the microsecond, which streams round to
the millisecond.

Figures stand in `trade_parity` by market and hour (block trades apart) and in `trade_checks` by hour. Checking an hour
again is safe: it changes nothing where nothing is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from kalshi_platform.clock import Clock
from kalshi_platform.deduplicator.merge import hour_activity
from kalshi_platform.deduplicator.merge import production as merged
from kalshi_platform.deduplicator.trades.rest_trades import MARGIN, Listing, TradeLister, delete_listing, store_listing
from kalshi_platform.errors import (
    AuthenticationFailed,
    ConnectionLost,
    DatabaseUnavailable,
    ExchangeUnavailable,
    LockHeld,
    RateLimited,
    RequestRejected,
    UnparsableMessage,
)
from kalshi_platform.market.names import readable
from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.partitions import PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

CheckState: TypeAlias = Literal["complete", "filled", "differs", "partial", "not checked"]
REST_GATHERER = "rest"
"""`gatherer` of rows that were filled from the listing."""
LISTING_DELAY = MARGIN
"""An hour is checked when it has been over for so long: the listing may trail the stream."""
_LONGEST_REASON = 1_000
_EXCHANGE_ERRORS = (
    AuthenticationFailed,
    ConnectionLost,
    ExchangeUnavailable,
    LockHeld,
    RateLimited,
    RequestRejected,
    UnparsableMessage,
)
_log = event_logger(__name__)


@dataclass(frozen=True)
class TradeCheck:
    """What a check found. Counts are trades of the hour, block trades included; states as in `trade_checks`."""

    hour: datetime
    state: CheckState
    reason: str | None = None
    production_count: int = 0
    rest_count: int = 0
    inserted: int = 0
    only_in_production: int = 0
    differing: int = 0
    skipped: int = 0

    @property
    def is_proved(self) -> bool:
        """Whether production now holds exactly the listed trades."""
        return self.state in ("complete", "filled")


def reconcile_trades(
    production: Database,
    rest: TradeLister | None,
    hour: datetime,
    keeper: PartitionKeeper,
    clock: Clock,
    *,
    merge_no: int | None = None,
) -> TradeCheck:
    """Check an hour as far as the exchange answers; otherwise the result is `not checked`, with the reason.

    `merge_no`: the number of the close that inserted or changed rows come with (None: one of their own, which reopens a
    closed hour). `rest`: None where no access to the exchange is configured. Raises DatabaseUnavailable.
    """
    if rest is None:
        return _record_not_checked(production, hour, "the exchange is not to be asked")
    if clock.now() < hour + HOUR + LISTING_DELAY:
        return _record_not_checked(production, hour, "the hour has not been over for long enough")
    try:
        return check_trades(production, rest, hour, keeper, merge_no=merge_no)
    except _EXCHANGE_ERRORS as error:
        _log.warning("trades_not_checked", hour=hour, error=error)
        return _record_not_checked(production, hour, str(error))


def check_trades(
    production: Database, rest: TradeLister, hour: datetime, keeper: PartitionKeeper, *, merge_no: int | None = None
) -> TradeCheck:
    """Compare one hour with the listing, insert what is missing and record what was found.

    Raises the errors of the exchange, LockHeld when another process checks the same hour, OutOfPartitionBounds,
    DatabaseUnavailable.
    """
    with production.advisory_lock("trade parity", hour.isoformat()) as lock:
        if lock is None:
            raise LockHeld(f"another process checks the trades of {hour.isoformat()}")
        try:
            listing = store_listing(production, rest, hour)
            return _compare_and_fill(production, hour, listing, keeper, merge_no)
        finally:
            delete_listing(production, hour)


def _compare_and_fill(
    production: Database, hour: datetime, listing: Listing, keeper: PartitionKeeper, merge_no: int | None
) -> TradeCheck:
    span = {
        "hour": hour,
        "until": hour + HOUR,
        "low": hour - MARGIN,
        "high": hour + HOUR + MARGIN,
        "gatherer": REST_GATHERER,
    }
    with production.transaction() as transaction:
        stored, inside = transaction.fetch_one(_SQL["count_listing"], span) or (0, 0)
    if stored != listing.trades:
        raise DatabaseUnavailable(
            f"the listing of {hour.isoformat()} has {stored} of {listing.trades} trades: the server lost its unlogged"
            " tables meanwhile; check the hour again"
        )
    if inside:
        keeper.ensure_hours("trades", [us_from_datetime(hour)])
    with merged.merge_transaction(production) as transaction:
        transaction.execute(_SQL["delete_parity"], span)
        transaction.execute(_SQL["insert_parity"], span)
        inserted = transaction.execute(_SQL["insert_missing_trades"], span)
        dated = 0
        if (transaction.fetch_one(_SQL["find_missing_created_times"], span) or (False,))[0]:
            dated = transaction.execute(_SQL["set_created_times"], span)
        if inserted or dated:
            # Both change what the lake holds of the hour.
            hour_activity.record_activity(transaction, {"trades": {hour: inserted}}, merge_no)
        return _record(transaction, hour, listing)


def _record(transaction: Transaction, hour: datetime, listing: Listing) -> TradeCheck:
    row = transaction.fetch_one(_SQL["sum_parity"], {"hour": hour})
    assert row is not None  # noqa: S101 - sums over any rows are one row
    held, listed, inserted, unlisted, differing = row
    check = TradeCheck(
        hour=hour,
        state=_state(listing, inserted=inserted, unexplained=unlisted + differing),
        reason=readable("; ".join(listing.left_out[:3]), _LONGEST_REASON) or None,
        production_count=held,
        rest_count=listed,
        inserted=inserted,
        only_in_production=unlisted,
        differing=differing,
        skipped=len(listing.left_out),
    )
    transaction.execute(_SQL["record_check"], vars(check))
    return check


def _state(listing: Listing, *, inserted: int, unexplained: int) -> CheckState:
    if listing.left_out:
        return "partial"
    if unexplained:
        return "differs"
    return "filled" if inserted else "complete"


def _record_not_checked(production: Database, hour: datetime, reason: str) -> TradeCheck:
    with production.transaction() as transaction:
        values = {"hour": hour, "until": hour + HOUR, "reason": reason}
        transaction.execute(_SQL["record_not_checked"], values)
    return TradeCheck(hour, "not checked", reason)
