"""Production, hour by hour: closing an hour merges it again from every gatherer and makes the books' checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.market.times import HOUR
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.orchestration.asset_metadata import closed_hour_metadata, count_production_rows, join_names
from kalshi_platform.orchestration.asset_plots import Plots, plot_agreement, plot_coverage_map
from kalshi_platform.orchestration.assets.external import make_source_events
from kalshi_platform.orchestration.checks import closed_hours, trades
from kalshi_platform.orchestration.columns import column_metadata, table_comment
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import (
    OWNERS,
    PRODUCTION_TABLE_NAMES,
    REST_SNAPSHOTS,
    gatherer,
    production,
)
from kalshi_platform.orchestration.partitions import depend_on_all_gatherers, parse_hour_key
from kalshi_platform.orchestration.resources import ProductionDatabase
from kalshi_platform.storage.pool import Database

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.close.close_record import HourClose
    from kalshi_platform.deduplicator.settings import DeduplicatorSettings

_TRAFFIC_TIMEOUT_S = 30.0
_log = event_logger(__name__)
_UPSTREAM = {
    "orderbook_snapshots": [gatherer("orderbook_snapshots"), REST_SNAPSHOTS],
    "book_checkpoints": [gatherer("orderbook_snapshots"), gatherer("orderbook_deltas")],
    "coverage": [gatherer("orderbook_snapshots"), gatherer("orderbook_deltas")],
}
_DESCRIPTIONS = {
    "trades": "One row per trade, whichever gatherers saw it.",
    "tickers": "One row per ticker update, whichever gatherers saw it.",
    "orderbook_snapshots": "One row per whole book: each gatherer's own from the WebSocket, one a minute over REST.",
}


class CloseConfig(dg.Config):
    """`fill`: first give rows of production what they lack and gatherers have, as after a rebuild from frames."""

    fill: bool = False


def make_closed_hours(hours: dg.HourlyPartitionsDefinition) -> dg.AssetsDefinition:
    """Make the assets of production's tables, which one step fills, hour by hour."""

    @dg.multi_asset(
        name="closed_hours",
        specs=[_make_spec(table) for table in PRODUCTION_TABLE_NAMES],
        partitions_def=hours,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[
            trades.make_unique_trades_spec(),
            *closed_hours.SPECS,
            trades.make_trade_parity_spec(production("trades")),
        ],
        pool="close_hour",
        retry_policy=RETRY,
        op_tags={"kalshi/stage": "production"},
    )
    def close_hours(
        context: dg.AssetExecutionContext, config: CloseConfig, production_database: ProductionDatabase
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        """Close every hour of the run's partitions; idempotent, so it is the backfill as well."""
        with as_failure(), production_database.database() as database:
            if config.fill:
                _fill_each(context, production_database.settings())
            missed = _close_each(context, production_database, database)
            hours = sorted(map(parse_hour_key, context.partition_keys))
            results = check_hours(production_database, database, hours, missed)
            report_sources(context, production_database.settings(), max(context.partition_keys), missed)
        for table in PRODUCTION_TABLE_NAMES:
            yield dg.MaterializeResult(asset_key=production(table))
        yield from results

    return close_hours


def _make_spec(table: str) -> dg.AssetSpec:
    text = _DESCRIPTIONS.get(table) or table_comment("production", table)
    return dg.AssetSpec(
        production(table),
        deps=[depend_on_all_gatherers(key) for key in _UPSTREAM.get(table, [gatherer(table)])],
        description=f"{text} One partition is one closed hour, merged from all gatherers.",
        group_name="production",
        owners=OWNERS,
        kinds={"postgres"},
        metadata=column_metadata("production", table),
    )


def _fill_each(context: dg.AssetExecutionContext, settings: "DeduplicatorSettings") -> None:
    """Fill columns of the run's hours."""
    from kalshi_platform.deduplicator.merge.fill_columns import fill_columns

    for key in sorted(context.partition_keys):
        filled = fill_columns(settings, parse_hour_key(key))
        context.log.info("columns_filled hour=%s rows=%s", key, filled)


def _close_each(
    context: dg.AssetExecutionContext, resource: ProductionDatabase, database: Database
) -> dict[str, tuple[str, ...]]:
    """Close the run's hours in order, with metadata for each; return the gatherers that were missed, by hour."""
    from kalshi_platform.deduplicator.close.close_hour import close_hour

    settings = resource.settings()
    rest = resource.rest_client() if settings.check_trades else None
    missed: dict[str, tuple[str, ...]] = {}
    keys = sorted(context.partition_keys)
    for key in keys:
        hour = parse_hour_key(key)
        closed = close_hour(settings, hour, resource.clock, resource.bounds(), rest=rest)
        context.log.info(
            "hour_closed hour=%s read=%s missed=%s",
            key,
            join_names(closed.gatherers_read),
            join_names(closed.gatherers_missed),
        )
        if closed.gatherers_missed:
            missed[key] = closed.gatherers_missed
        plots = plot_hour(database, hour, settings.least_agreement) if key == keys[-1] else {}
        for table in PRODUCTION_TABLE_NAMES:
            context.add_asset_metadata(
                closed_table_metadata(database, closed, table, plots),
                asset_key=production(table),
                partition_key=key,
            )
    return missed


def closed_table_metadata(
    database: Database, closed: "HourClose", table: str, plots: Mapping[str, Plots]
) -> dict[str, Any]:
    """Describe a closed hour of a production table: its rows, how it came about, and its plots."""
    counted = count_production_rows(database, table, closed.hour, closed.hour + HOUR)
    return {**counted, **closed_hour_metadata(closed, table), **plots.get(table, {})}


def plot_hour(database: Database, hour: datetime, least_agreement: float) -> dict[str, Plots]:
    """Plot the hours up to this one, by table."""
    return {
        "coverage": plot_coverage_map(database, hour),
        "orderbook_deltas": plot_agreement(database, hour, least_agreement),
    }


def report_sources(
    context: dg.AssetExecutionContext,
    settings: "DeduplicatorSettings",
    key: str,
    missed: Mapping[str, tuple[str, ...]],
) -> None:
    """Report what gatherers received from the exchange in an hour; one that gives no answer is left out.

    `missed`: gatherers that closes missed, by key of the hour.
    """
    from kalshi_platform.deduplicator.close.hour_traffic import read_hour_traffic

    hour, traffic = parse_hour_key(key), {}
    for source in settings.sources:
        if source.name in missed.get(key, ()):
            continue
        try:
            traffic[source.name] = read_hour_traffic(source, hour, _TRAFFIC_TIMEOUT_S)
        except KalshiPlatformError as error:
            _log.warning("traffic_not_read", gatherer=source.name, error=error)
    for event in make_source_events(hour, traffic) if traffic else ():
        context.log_event(event)


def check_hours(
    resource: ProductionDatabase, database: Database, hours: Sequence[datetime], missed: Mapping[str, tuple[str, ...]]
) -> list[dg.AssetCheckResult]:
    """Check closed hours; `missed`: gatherers that their closes missed, by key of the hour."""
    return [
        trades.check_unique_trades(database, hours),
        closed_hours.check_all_read(missed, len(hours)),
        *closed_hours.check_closed_hours(database, hours, resource.settings().least_agreement),
        trades.check_trade_parity(database, hours, production("trades")),
    ]
