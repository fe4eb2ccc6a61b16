"""The job that makes rows of gatherers' tables from their frames again, for an hour, on the gatherers' host."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from kalshi_platform import config as settings
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.jobs.descriptions import with_example
from kalshi_platform.orchestration.keys import gatherer
from kalshi_platform.orchestration.partitions import parse_hour_key
from kalshi_platform.orchestration.resources import LakeResource, PlatformResource

if TYPE_CHECKING:
    from kalshi_platform.archive.compare_rows import RebuiltTable
    from kalshi_platform.archive.rebuild import Rebuilt
    from kalshi_platform.lake.settings import LakeSettings


class RebuildConfig(dg.Config):
    """Which gatherers' tables are rebuilt, and what may be written."""

    gatherers: list[str] = Field(default=[], description="Names of gatherers of this host; empty: all of them.")
    overwrite: bool = Field(
        default=False, description="Also replace values that are there and differ from what the frames give now."
    )
    dry_run: bool = Field(default=False, description="Only count what would be written.")


@dg.op(
    name="rebuild",
    description="Decodes the frames of the hour again; fills what rows lack, and inserts rows that are missing.",
)
def rebuild(
    context: dg.OpExecutionContext, config: RebuildConfig, platform: PlatformResource, lake: LakeResource
) -> None:
    """Rebuild the hour of each gatherer; what differs and stays fails the run at its end."""
    from kalshi_platform.archive.rebuild import rebuild_tables

    hour = parse_hour_key(context.partition_key)
    differing: list[str] = []
    for name in config.gatherers or _list_hosted():
        with as_failure():
            done = rebuild_tables(
                _load_lake(lake),
                platform.gatherer(name),
                hour,
                platform.bounds(),
                platform.clock,
                overwrite=config.overwrite,
                dry_run=config.dry_run,
            )
        for table, counted in done.tables.items():
            if counted.rows or counted.unexplained:
                context.log.info("table_rebuilt gatherer=%s table=%s %s", name, table, _metadata(counted))
            if not config.dry_run and (counted.filled or counted.inserted or (counted.changed and config.overwrite)):
                key = gatherer(table)
                context.log_event(dg.AssetMaterialization(key, partition=name, metadata=_metadata(counted)))
        context.log.info("hour_rebuilt gatherer=%s frames=%s damages=%s", name, done.frames, done.damages)
        differing += [f"{name} {line}" for line in _describe_differing(done)]
    if differing:
        raise dg.Failure("what differs and stays as it is:\n" + "\n".join(differing), allow_retries=False)


def make_rebuild_job(hours: dg.HourlyPartitionsDefinition) -> dg.JobDefinition:
    """Make the job; launched as it is, it rebuilds an hour of all gatherers of this host."""

    @dg.job(
        name="rebuild_tables",
        executor_def=dg.in_process_executor,
        partitions_def=hours,
        tags={"kalshi/kind": "batch"},
        description=with_example(
            "Makes the rows of an hour from its frames again, as the gatherers of this host received them: after a "
            "migration added a column, or a parser was mended. Reads the lake (raw/frames) and the journals here. What "
            "rows lack is filled, what is missing inserted; values that are there stay unless `overwrite` says else; "
            "nothing is deleted. Choose an hour; production gets filled values with rebuild_hour and `fill`.",
            """
            ops:
              rebuild:
                config:
                  gatherers: [g1]
                  overwrite: false   # true: replace values that differ, too
                  dry_run: true      # only count
            """,
        ),
    )
    def rebuild_tables_job() -> None:
        rebuild()

    return rebuild_tables_job


def _list_hosted() -> list[str]:
    role = settings.role()
    return [name for name in settings.gatherer_names() if role.serves_gatherer(name)]


def _load_lake(lake: LakeResource) -> "LakeSettings | None":
    try:
        return lake.settings()
    except ConfigurationError:  # the journal alone is read
        return None


def _metadata(table: "RebuiltTable") -> dict[str, Any]:
    counts = {"rows": table.rows, "filled": table.filled, "changed": table.changed, "inserted": table.inserted}
    columns = {f"filled {name}": count for name, count in table.filled_columns.items()}
    return {**counts, "unexplained": table.unexplained, **columns}


def _describe_differing(done: "Rebuilt") -> list[str]:
    return [
        f"{table}: {counted.changed} rows have other values, {counted.unexplained} rows no frame gives"
        for table, counted in done.tables.items()
        if done.is_differing(table)
    ]
