"""Is every trade in production once? Asked of the last day, whenever a person or a schedule wants to know."""

from datetime import timedelta

import dagster as dg

from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.figures import duplicate_trades
from kalshi_platform.orchestration.keys import production
from kalshi_platform.orchestration.resources import ProductionDatabase


@dg.asset_check(
    asset=production("trades"),
    name="no_duplicate_trade_ids_last_day",
    description="No (ticker, trade_id) stands in production twice within the last 24 hours.",
)
def no_duplicate_trade_ids_last_day(production_database: ProductionDatabase) -> dg.AssetCheckResult:
    now = production_database.clock.now()
    with as_failure(), production_database.database() as database:
        rows, distinct = duplicate_trades(database, now - timedelta(days=1), now)
    return dg.AssetCheckResult(
        passed=rows == distinct, metadata={"rows": rows, "distinct_ids": distinct, "duplicates": rows - distinct}
    )
