"""Exchange status and catalog of one gatherer, on demand: the same functions that its service calls."""

from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform.orchestration.asset_metadata import count_catalog_rows, status_metadata, sync_metadata
from kalshi_platform.orchestration.columns import column_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import EXCHANGE_STATUS, OWNERS, REST, gatherer
from kalshi_platform.orchestration.resources import PlatformResource
from kalshi_platform.storage.pool import Database

if TYPE_CHECKING:
    from kalshi_platform.catalog.store import SyncReport

_DESCRIPTIONS = {
    "series": "Every series that the exchange lists, as this gatherer's catalog knows it; changes become history rows.",
    "events": "Every event that the exchange lists, as this gatherer's catalog knows it; changes become history rows.",
    "markets": (
        "Every market that the exchange lists, as this gatherer's catalog knows it; changes become history rows. "
        "The gatherer subscribes to what stands here."
    ),
}
_UPSTREAM = {"series": [REST], "events": [REST, gatherer("series")], "markets": [REST, gatherer("events")]}


class SyncConfig(dg.Config):
    """`full`: list everything again, instead of what changed since the last sync."""

    full: bool = False


def make_catalog_assets(gatherers: dg.StaticPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Make the assets of the exchange's status, series, events and markets, with a partition per gatherer."""
    return [_make_exchange_status(gatherers), *(_make_catalog_asset(table, gatherers) for table in _DESCRIPTIONS)]


def _make_exchange_status(gatherers: dg.StaticPartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        key=EXCHANGE_STATUS,
        deps=[REST],
        partitions_def=gatherers,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="gatherer",
        owners=OWNERS,
        kinds={"rest"},
        retry_policy=RETRY,
        description=(
            "Whether the exchange works and trades, as this gatherer sees it: read when it begins to record, and on "
            "demand. A trading pause is not a stop."
        ),
    )
    def exchange_status(platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from kalshi_platform.gatherer.status.reports import make_status_report

        with as_failure():
            status = platform.rest_client().exchange_status()
        return dg.MaterializeResult(metadata=status_metadata(make_status_report(platform.clock.now(), status)))

    return exchange_status


def _make_catalog_asset(table: str, gatherers: dg.StaticPartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        key=gatherer(table),
        deps=_UPSTREAM[table],
        partitions_def=gatherers,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="gatherer",
        owners=OWNERS,
        kinds={"rest", "postgres"},
        retry_policy=RETRY,
        description=_DESCRIPTIONS[table],
        metadata=column_metadata("catalog", table),
    )
    def synced(
        context: dg.AssetExecutionContext, config: SyncConfig, platform: PlatformResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        for name in sorted(context.partition_keys):
            with as_failure(), platform.catalog(name) as database:
                report = _sync(table, platform, database, full=config.full)
                metadata = {**count_catalog_rows(database, table), **sync_metadata(report)}
            context.add_asset_metadata(metadata, partition_key=name)
        return dg.MaterializeResult()

    return synced


def _sync(table: str, platform: PlatformResource, database: Database, *, full: bool) -> "SyncReport":
    from kalshi_platform.catalog import sync
    from kalshi_platform.catalog.store import CatalogStore

    rest = platform.rest_client()
    functions = {"series": sync.sync_series, "events": sync.sync_events, "markets": sync.sync_markets}
    return functions[table](rest, CatalogStore(database, rest.clock_offset), platform.clock, full)
