"""Checks of production's trades: each stands there once, and they are those that the exchange lists.

The asset that makes a partition checks its hours; the checks of the last day are run by themselves, on demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from kalshi_platform.market.times import HOUR, hour_of
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.keys import production
from kalshi_platform.orchestration.resources import ProductionDatabase
from kalshi_platform.orchestration.trade_summary import count_trades, list_closed_hours, summarize_trade_checks
from kalshi_platform.storage.pool import Database

UNIQUE_TRADES = "no_duplicate_trade_ids"
TRADE_PARITY = "trade_parity"
_TRADES = production("trades")
_DAY = timedelta(days=1)
# A trade may carry another time in another copy, so the neighbouring minutes are looked at as well.
_OTHER_TIMES = timedelta(minutes=1)


def make_unique_trades_spec() -> dg.AssetCheckSpec:
    """Make the spec of the check that the close of an hour makes."""
    return dg.AssetCheckSpec(
        UNIQUE_TRADES,
        asset=_TRADES,
        description="No (ticker, trade_id) stands in production twice in the hours just closed.",
    )


def check_unique_trades(database: Database, hours: Sequence[datetime]) -> dg.AssetCheckResult:
    """Check the trades from the first to the last of these hours, which are ascending."""
    rows, distinct = count_trades(database, hours[0] - _OTHER_TIMES, hours[-1] + HOUR + _OTHER_TIMES)
    return dg.AssetCheckResult(
        asset_key=_TRADES,
        check_name=UNIQUE_TRADES,
        passed=rows == distinct,
        metadata={**_duplicates(rows, distinct), "hours": len(hours)},
    )


@dg.asset_check(
    asset=_TRADES,
    name="no_duplicate_trade_ids_last_day",
    description="No (ticker, trade_id) stands in production twice within the last 24 hours.",
)
def no_duplicate_trade_ids_last_day(production_database: ProductionDatabase) -> dg.AssetCheckResult:
    """Count the rows and the distinct trade ids of the last day."""
    now = production_database.clock.now()
    with as_failure(), production_database.database() as database:
        rows, distinct = count_trades(database, now - _DAY, now)
    return dg.AssetCheckResult(passed=rows == distinct, metadata=_duplicates(rows, distinct))


def make_trade_parity_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Make the spec of the check on an asset whose run makes it."""
    return dg.AssetCheckSpec(
        TRADE_PARITY,
        asset=asset,
        description="Production holds exactly the trades that the exchange lists. Hours that could not be compared, or"
        " not wholly, warn; trades or values that the exchange does not list are an error.",
    )


def check_trade_parity(database: Database, hours: Sequence[datetime], asset: dg.AssetKey) -> dg.AssetCheckResult:
    """Check what the last comparisons of these hours found."""
    found = summarize_trade_checks(database, hours)
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=TRADE_PARITY,
        passed=found.proved == found.hours,
        severity=dg.AssetCheckSeverity.ERROR if found.contradicted else dg.AssetCheckSeverity.WARN,
        metadata={
            "hours": found.hours,
            "proved_hours": found.proved,
            "contradicted_hours": found.contradicted,
            "hours_not_checked": found.states.get("not checked", 0),
            "hours_partly_read": found.states.get("partial", 0),
            "trades_listed": found.listed,
            "trades_inserted": found.inserted,
            "only_in_production": found.only_in_production,
            "differing": found.differing,
            "where": dg.MetadataValue.text("\n".join(found.worst) or "none"),
        },
    )


@dg.asset_check(
    asset=_TRADES,
    name="trade_parity_last_day",
    description="The same as trade_parity, of the closed hours among the last 24, on demand.",
)
def trade_parity_last_day(production_database: ProductionDatabase) -> dg.AssetCheckResult:
    """Compare stored trades with the exchange's list, for the closed hours of the last day."""
    end = hour_of(production_database.clock.now())
    with as_failure(), production_database.database() as database:
        result = check_trade_parity(database, list_closed_hours(database, end - _DAY, end), _TRADES)
    return dg.AssetCheckResult(passed=result.passed, severity=result.severity, metadata=result.metadata)


def _duplicates(rows: int, distinct: int) -> dict[str, Any]:
    return {"rows": rows, "distinct_ids": distinct, "duplicates": rows - distinct}
