"""Trades of past days from the exchange's own listing: for days that no gatherer recorded, or not wholly."""

from datetime import datetime

import dagster as dg

from kalshi_platform.orchestration.asset_metadata import count_production_rows
from kalshi_platform.orchestration.checks.trades import check_trade_parity, make_trade_parity_spec
from kalshi_platform.orchestration.columns import column_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import OWNERS, REST, TRADES_BACKFILL
from kalshi_platform.orchestration.partitions import DAY, parse_day_key
from kalshi_platform.orchestration.resources import ProductionDatabase
from kalshi_platform.storage.pool import Database


def make_trades_backfill(days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Make the asset of listed trades, with a partition per day."""

    @dg.asset(
        key=TRADES_BACKFILL,
        deps=[REST],
        partitions_def=days,
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
        check_specs=[make_trade_parity_spec(TRADES_BACKFILL)],
    )
    def trades_backfill(
        context: dg.AssetExecutionContext, production_database: ProductionDatabase
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with as_failure(), production_database.database() as database:
            hours = _backfill_each(context, production_database, database)
            result = check_trade_parity(database, hours, TRADES_BACKFILL)
        return dg.MaterializeResult(check_results=[result])

    return trades_backfill


def _backfill_each(
    context: dg.AssetExecutionContext, resource: ProductionDatabase, database: Database
) -> list[datetime]:
    """Fetch and insert the run's days in order, with metadata for each; return their hours."""
    from kalshi_platform.deduplicator.trades.backfill import backfill_trades, list_hours

    rest = resource.rest_client()
    # A repeated attempt goes on where the one before it stopped.
    done_since = _first_requested_at(context)
    checked: list[datetime] = []
    for key in sorted(context.partition_keys):
        day = parse_day_key(key)
        hours = list_hours(day.date())
        done = backfill_trades(database.url, rest, hours, resource.clock, resource.bounds(), done_since=done_since)
        checked += hours
        listed, inserted = done.total("rest_count"), done.total("inserted")
        context.log.info("trades_backfilled day=%s listed=%s inserted=%s", key, listed, inserted)
        context.add_asset_metadata(
            {
                **count_production_rows(database, "trades", day, day + DAY),
                "trades_listed": listed,
                "trades_inserted": inserted,
                "hours_done_before": len(done.skipped),
            },
            partition_key=key,
        )
    return checked


def _first_requested_at(context: dg.AssetExecutionContext) -> datetime | None:
    """Return when this run, or the one that it repeats, was requested."""
    record = context.instance.get_run_record_by_id(context.run.root_run_id or context.run.run_id)
    return None if record is None else record.create_timestamp
