"""Trades of past days from the exchange's own listing: for days that no gatherer recorded, or not wholly."""

from datetime import datetime

import dagster as dg

from kalshi_platform.orchestration.checks import trade_parity
from kalshi_platform.orchestration.columns import column_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.figures import production_rows
from kalshi_platform.orchestration.keys import OWNERS, REST, TRADES_BACKFILL
from kalshi_platform.orchestration.partitions import DAY, DAYS, day_of
from kalshi_platform.orchestration.resources import ProductionDatabase


@dg.asset(
    key=TRADES_BACKFILL,
    deps=[REST],
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="production",
    owners=OWNERS,
    kinds={"rest", "postgres"},
    pool="trades_backfill",
    retry_policy=RETRY,
    description=(
        "A day of trades as the exchange lists them, compared with production hour by hour; what is missing is "
        "inserted. It needs no gatherer, for any day. Hours that get trades are closed and exported again."
    ),
    metadata=column_metadata("production", "trade_checks"),
    check_specs=[trade_parity.spec(TRADES_BACKFILL)],
)
def trades_backfill(context: dg.AssetExecutionContext, production_database: ProductionDatabase) -> dg.MaterializeResult:  # type: ignore[type-arg]
    from kalshi_platform.deduplicator.trades.backfill import backfill_trades, hours_of

    asked_at = _asked_at(context)
    checked: list[datetime] = []
    with as_failure(), production_database.database() as database:
        rest = production_database.rest_client()
        for key in sorted(context.partition_keys):
            day = day_of(key)
            hours = hours_of(day.date())
            done = backfill_trades(
                database.url,
                rest,
                hours,
                production_database.clock,
                production_database.bounds(),
                # A repeated attempt goes on where the one before it stopped.
                done_since=asked_at,
            )
            checked += hours
            context.log.info(f"{key}: {done.total('rest_count')} trades listed, {done.total('inserted')} inserted")
            context.add_asset_metadata(
                {
                    **production_rows(database, "trades", day, day + DAY),
                    "trades_listed": done.total("rest_count"),
                    "trades_inserted": done.total("inserted"),
                    "hours_done_before": len(done.skipped),
                },
                partition_key=key,
            )
        result = trade_parity.evaluate(database, checked, TRADES_BACKFILL)
    return dg.MaterializeResult(check_results=[result])


def _asked_at(context: dg.AssetExecutionContext) -> datetime | None:
    """When this run, or the one that it repeats, was asked for."""
    record = context.instance.get_run_record_by_id(context.run.root_run_id or context.run.run_id)
    return None if record is None else record.create_timestamp
