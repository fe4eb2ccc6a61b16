"""Closes hours in buckets of markets, a run each, so that several machines work on one hour side by side.

The run that finds all other buckets of its hour done closes the hour, and records the hour's materializations and
checks of production's tables, as the run that closes it at once does.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import dagster as dg

from kalshi_platform.market.parts import MarketPart
from kalshi_platform.market.tables import MERGED_TABLES
from kalshi_platform.orchestration.asset_metadata import bucket_metadata, join_names
from kalshi_platform.orchestration.assets.production import (
    check_hours,
    closed_table_metadata,
    plot_hour,
    report_sources,
)
from kalshi_platform.orchestration.columns import column_metadata, table_comment
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import HOUR_PARTS, OWNERS, PRODUCTION_TABLE_NAMES, gatherer, production
from kalshi_platform.orchestration.partitions import (
    BUCKET_DIMENSION,
    HOUR_DIMENSION,
    depend_on_all_gatherers,
    hour_key,
    parse_hour_key,
)
from kalshi_platform.orchestration.resources import ProductionDatabase
from kalshi_platform.storage.pool import Database

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.close.close_record import HourClose


def make_hour_parts(hour_buckets: dg.MultiPartitionsDefinition) -> dg.AssetsDefinition:
    """Make the asset; its partitions are hours × buckets."""

    @dg.asset(
        key=HOUR_PARTS,
        deps=[depend_on_all_gatherers(gatherer(table)) for table in MERGED_TABLES],
        partitions_def=hour_buckets,
        description=(
            f"{table_comment('production', 'hour_parts')} One partition is one bucket of the markets of one closed"
            " hour, and one run: the last bucket closes the hour in the tables beside this one. For hours that are"
            " too long for one machine, and for backfills on many."
        ),
        group_name="production",
        owners=OWNERS,
        kinds={"postgres"},
        metadata=column_metadata("production", "hour_parts"),
        pool="close_bucket",
        retry_policy=RETRY,
        op_tags={"kalshi/stage": "production"},
    )
    def close_bucket(
        context: dg.AssetExecutionContext, production_database: ProductionDatabase
    ) -> dg.MaterializeResult[None]:
        """Work on the bucket; close the hour when it was the last one. Idempotent."""
        from kalshi_platform.deduplicator.close.close_hour import close_part

        chosen = cast(dg.MultiPartitionKey, context.partition_key).keys_by_dimension
        hour, part = parse_hour_key(chosen[HOUR_DIMENSION]), MarketPart.parse(chosen[BUCKET_DIMENSION])
        with as_failure(), production_database.database() as database:
            settings = production_database.settings()
            rest = production_database.rest_client() if settings.check_trades else None
            done = close_part(settings, hour, part, production_database.clock, production_database.bounds(), rest)
            if done.closed is not None:
                context.log.info(
                    "hour_closed hour=%s buckets=%s read=%s missed=%s",
                    hour_key(hour),
                    part.total,
                    join_names(done.closed.gatherers_read),
                    join_names(done.closed.gatherers_missed),
                )
                missed = {hour_key(hour): done.closed.gatherers_missed} if done.closed.gatherers_missed else {}
                for event in _make_hour_events(production_database, database, done.closed, missed):
                    context.log_event(event)
                report_sources(context, settings, hour_key(hour), missed)
        return dg.MaterializeResult(metadata=bucket_metadata(done))

    return close_bucket


def _make_hour_events(
    resource: ProductionDatabase, database: Database, closed: "HourClose", missed: Mapping[str, tuple[str, ...]]
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """Make what the run that closes an hour at once records of it."""
    plots = plot_hour(database, closed.hour, resource.settings().least_agreement)
    for table in PRODUCTION_TABLE_NAMES:
        metadata = closed_table_metadata(database, closed, table, plots)
        yield dg.AssetMaterialization(production(table), partition=hour_key(closed.hour), metadata=metadata)
    for result in check_hours(resource, database, [closed.hour], missed):
        assert result.asset_key is not None  # noqa: S101 - all of these name it
        assert result.check_name is not None  # noqa: S101
        yield dg.AssetCheckEvaluation(
            asset_key=result.asset_key,
            check_name=result.check_name,
            passed=result.passed,
            metadata=result.metadata,
            severity=result.severity,
            description=result.description,
        )
