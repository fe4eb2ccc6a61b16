"""The lake's closed partitions as Iceberg tables: the last week every hour, and all of the lake once a day."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.orchestration.asset_metadata import time_span
from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import LAKE_DAILY, LAKE_RAW, LAKE_TABLES, OWNERS
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase

if TYPE_CHECKING:
    from datetime import date

    from kalshi_platform.lake.iceberg.register import Registered

LOOK_BACK_DAYS = 8
"""The days whose partitions the schedules make again."""


class RegisterConfig(dg.Config):
    """`all_days`: compare every day of the lake, and not only those of the last week."""

    all_days: bool = False


@dg.asset(
    key=LAKE_TABLES,
    deps=[*LAKE_RAW, *LAKE_DAILY],
    group_name="lake",
    owners=OWNERS,
    kinds={"iceberg"},
    retry_policy=RETRY,
    description=(
        "One Apache Iceberg table per data set of the lake, which names the files of its closed partitions: what "
        "Spark, Trino, Athena, Snowflake, ClickHouse, DuckDB, Polars and Daft read. Nothing is rewritten."
    ),
)
def lake_tables(
    config: RegisterConfig,
    lake: LakeResource,
    production_database: ProductionDatabase,
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Register what exports of the last week have published, or of all days."""
    from kalshi_platform.errors import PartitionBusy
    from kalshi_platform.lake.iceberg.register import register
    from kalshi_platform.lake.store import open_store

    done: list[Registered] = []
    busy: list[str] = []
    with as_failure():
        store, settings = open_store(lake.settings()), lake.iceberg()
        today = production_database.clock.now()
        days = None if config.all_days else _last_week(today.date())
        for data in DATASETS.values():
            try:
                done += register(store, settings, [data], days)
            except PartitionBusy:  # the other one registers the same; the next run sees what it may have missed
                busy.append(data.key)
    span = {} if config.all_days else time_span(today - timedelta(days=LOOK_BACK_DAYS - 1), today)
    return dg.MaterializeResult(metadata={**_metadata(done, busy), **span})


def _last_week(today: "date") -> "list[date]":
    return [today - timedelta(days=number) for number in range(LOOK_BACK_DAYS)]


def _metadata(done: "list[Registered]", busy: list[str]) -> dict[str, Any]:
    lines = ["| table | files | rows | commits | added | removed |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {each.dataset.key} | {each.files:,} | {each.rows:,} | {each.commits} | {each.files_added} |"
        f" {each.files_removed} |"
        for each in done
    ]
    skipped = [f"{folder}: {reason}" for each in done for folder, reason in each.skipped.items()]
    return {
        "tables": dg.MetadataValue.md("\n".join(lines)),
        "dagster/row_count": sum(each.rows for each in done),
        "files": sum(each.files for each in done),
        "commits": sum(each.commits for each in done),
        "not_registered": "; ".join(skipped) or "none",
        "busy": ", ".join(busy) or "none",
    }
