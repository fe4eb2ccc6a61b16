"""Exchange status and catalog of one gatherer, on demand: the same functions that its service calls."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform.clock import Clock
from kalshi_platform.orchestration.columns import column_metadata
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import EXCHANGE_STATUS, OWNERS, REST, gatherer
from kalshi_platform.orchestration.partitions import GATHERERS
from kalshi_platform.orchestration.resources import PlatformResource

if TYPE_CHECKING:
    from kalshi_platform.catalog.store import CatalogStore
    from kalshi_platform.catalog.sync import SyncReport
    from kalshi_platform.exchange.rest import RestClient

_DESCRIPTIONS = {
    "series": "Every series that the exchange lists, as this gatherer's catalog knows it; changes become history rows.",
    "events": "Every event that the exchange lists, as this gatherer's catalog knows it; changes become history rows.",
    "markets": (
        "Every market that the exchange lists, as this gatherer's catalog knows it; changes become history rows. "
        "The gatherer subscribes to what stands here."
    ),
}
_UPSTREAM = {"series": [REST], "events": [REST, gatherer("series")], "markets": [REST, gatherer("events")]}


@dg.asset(
    key=EXCHANGE_STATUS,
    deps=[REST],
    partitions_def=GATHERERS,
    group_name="gatherer",
    owners=OWNERS,
    kinds={"rest"},
    retry_policy=RETRY,
    description="Whether the exchange works and trades, as this gatherer sees it. A trading pause is not a stop.",
)
def exchange_status(platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    with as_failure():
        status = platform.rest_client().exchange_status()
    resume = status.estimated_resume_us
    return dg.MaterializeResult(
        metadata={
            "exchange_active": status.exchange_active,
            "trading_active": status.trading_active,
            "estimated_resume": datetime.fromtimestamp(resume / 1e6, UTC).isoformat() if resume else "none named",
        }
    )


class SyncConfig(dg.Config):
    """`full`: list everything again, instead of what changed since the last sync."""

    full: bool = False


def _sync(what: str) -> "Callable[[RestClient, CatalogStore, Clock, bool], SyncReport]":
    from kalshi_platform.catalog import sync

    return {"series": sync.sync_series, "events": sync.sync_events, "markets": sync.sync_markets}[what]


def _catalog_asset(table: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=gatherer(table),
        deps=_UPSTREAM[table],
        partitions_def=GATHERERS,
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
        from kalshi_platform.catalog.store import CatalogStore

        with as_failure(), platform.catalog(context.partition_key) as database:
            rest = platform.rest_client()
            report = _sync(table)(rest, CatalogStore(database, rest.clock_offset), platform.clock, config.full)
            with database.transaction() as transaction:
                count = transaction.fetch_one(f"SELECT count(*) FROM {table}")  # noqa: S608 (one of three own names)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": int(count[0]) if count else 0,
                "scope": report.scope,
                "rows_seen": report.rows_seen,
                "rows_changed": report.rows_changed,
                "left_out": report.lacks or "nothing",
                "time_min": report.started_at.isoformat(),
                "time_max": report.finished_at.isoformat(),
            }
        )

    return synced


CATALOG = [exchange_status, *(_catalog_asset(table) for table in _DESCRIPTIONS)]
