"""Are production's trades those that the exchange lists? A check with its figures, of hours that were compared."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import dagster as dg

from kalshi_platform.market.times import hour_of
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.keys import production
from kalshi_platform.orchestration.resources import ProductionDatabase
from kalshi_platform.orchestration.trade_figures import trade_parity
from kalshi_platform.storage.pool import Database

TRADE_PARITY = "trade_parity"
_DAY = 24


def spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """The check on an asset whose run makes it."""
    return dg.AssetCheckSpec(
        TRADE_PARITY,
        asset=asset,
        description="Production holds exactly the trades that the exchange lists. Hours that could not be compared, or"
        " not wholly, warn; trades or values that the exchange does not list are an error.",
    )


def evaluate(database: Database, hours: Sequence[datetime], asset: dg.AssetKey) -> dg.AssetCheckResult:
    """What the last comparisons of these hours found."""
    found = trade_parity(database, hours)
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
    asset=production("trades"),
    name="trade_parity_last_day",
    description="The same as trade_parity, of the closed hours among the last 24, whenever somebody wants to know.",
)
def trade_parity_last_day(production_database: ProductionDatabase) -> dg.AssetCheckResult:
    ended = hour_of(production_database.clock.now())
    with as_failure(), production_database.database() as database:
        with database.transaction() as transaction:
            rows = transaction.fetch_all(
                "SELECT hour FROM hour_closes WHERE hour >= %s AND hour < %s",
                (ended - timedelta(hours=_DAY), ended),
            )
        result = evaluate(database, [row[0] for row in rows], production("trades"))
    return dg.AssetCheckResult(passed=result.passed, severity=result.severity, metadata=result.metadata)
