"""The merge, hour by hour: closing an hour merges it again from every gatherer and makes the books' anchors."""

from collections.abc import Iterator

import dagster as dg

from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration import hour_checks
from kalshi_platform.orchestration.checks import trade_parity
from kalshi_platform.orchestration.columns import column_metadata, table_comment
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.figures import duplicate_trades, production_rows
from kalshi_platform.orchestration.keys import (
    OWNERS,
    PRODUCTION_TABLE_NAMES,
    REST_SNAPSHOTS,
    gatherer,
    production,
)
from kalshi_platform.orchestration.partitions import HOURS, from_all_gatherers, hour_of
from kalshi_platform.orchestration.resources import ProductionDatabase

UNIQUE_TRADES = "no_duplicate_trade_ids"
ALL_READ = "all_gatherers_read"

_UPSTREAM = {
    "orderbook_snapshots": [gatherer("orderbook_snapshots"), REST_SNAPSHOTS],
    "book_anchors": [gatherer("orderbook_snapshots"), gatherer("orderbook_deltas")],
}
_DESCRIPTIONS = {
    "trades": "One row per trade, whichever gatherers saw it.",
    "tickers": "One row per ticker update, whichever gatherers saw it.",
    "orderbook_snapshots": "One row per whole book: each gatherer's own from the WebSocket, one a minute over REST.",
}


def _spec(table: str) -> dg.AssetSpec:
    text = _DESCRIPTIONS.get(table) or table_comment("production", table)
    return dg.AssetSpec(
        production(table),
        deps=[from_all_gatherers(key) for key in _UPSTREAM.get(table, [gatherer(table)])],
        description=f"{text} One partition is one closed hour, merged from all gatherers.",
        group_name="production",
        owners=OWNERS,
        kinds={"postgres"},
        metadata=column_metadata("production", table),
    )


@dg.multi_asset(
    name="closed_hours",
    specs=[_spec(table) for table in PRODUCTION_TABLE_NAMES],
    partitions_def=HOURS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[
        dg.AssetCheckSpec(
            UNIQUE_TRADES,
            asset=production("trades"),
            description="No (ticker, trade_id) stands in production twice in the hours just closed.",
        ),
        dg.AssetCheckSpec(
            ALL_READ,
            asset=production("orderbook_deltas"),
            description="No gatherer was missed when the hours were closed; if one was, they are closed again later.",
        ),
        *hour_checks.SPECS,
        trade_parity.spec(production("trades")),
    ],
    pool="close_hour",
    retry_policy=RETRY,
    op_tags={"kalshi/stage": "production"},
)
def close_hours(
    context: dg.AssetExecutionContext, production_database: ProductionDatabase
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Close every hour of the run's partitions; idempotent, so it is the backfill as well."""
    from kalshi_platform.deduplicator.close.close_hour import close_hour

    hours = sorted(hour_of(key) for key in context.partition_keys)
    keys = {hour_of(key): key for key in context.partition_keys}
    rows = distinct = 0
    missed: list[str] = []
    checked: list[dg.AssetCheckResult] = []
    with as_failure():
        settings, bounds, clock = (
            production_database.settings(),
            production_database.bounds(),
            production_database.clock,
        )
        rest = production_database.rest_client() if settings.check_trades else None
        with production_database.database() as database:
            for hour in hours:
                closed = close_hour(settings, hour, clock, bounds, rest=rest)
                context.log.info(
                    f"closed {keys[hour]}: read {', '.join(closed.gatherers_read) or 'nobody'};"
                    f" missed {', '.join(closed.gatherers_missed) or 'nobody'}"
                )
                if closed.gatherers_missed:
                    missed.append(f"{keys[hour]}: {', '.join(closed.gatherers_missed)}")
                for table in PRODUCTION_TABLE_NAMES:
                    context.add_asset_metadata(
                        {
                            **production_rows(database, table, hour, hour + HOUR),
                            "gatherers_read": ", ".join(closed.gatherers_read) or "none",
                            "gatherers_missed": ", ".join(closed.gatherers_missed) or "none",
                            "gatherers_incomplete": ", ".join(sorted(closed.gatherers_incomplete)) or "none",
                            "rows_were_dropped": table in closed.dropped,
                        },
                        asset_key=production(table),
                        partition_key=keys[hour],
                    )
            # A trade may carry another time in another copy, so the neighbouring minutes are looked at as well.
            rows, distinct = duplicate_trades(database, hours[0] - HOUR / 60, hours[-1] + HOUR + HOUR / 60)
            checked = list(hour_checks.evaluate(database, hours, settings.least_agreement))
            checked.append(trade_parity.evaluate(database, hours, production("trades")))
    for table in PRODUCTION_TABLE_NAMES:
        yield dg.MaterializeResult(asset_key=production(table))
    yield dg.AssetCheckResult(
        asset_key=production("trades"),
        check_name=UNIQUE_TRADES,
        passed=rows == distinct,
        metadata={"rows": rows, "distinct_ids": distinct, "duplicates": rows - distinct, "hours": len(hours)},
    )
    yield dg.AssetCheckResult(
        asset_key=production("orderbook_deltas"),
        check_name=ALL_READ,
        passed=not missed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"hours": len(hours), "missed": "; ".join(missed) or "none"},
    )
    yield from checked
