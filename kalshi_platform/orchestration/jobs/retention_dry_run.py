"""The job that says what retention would drop now, and why the rest stays; it changes nothing."""

import dagster as dg
from pydantic import Field

from kalshi_platform.orchestration.asset_metadata import retention_metadata
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.jobs.descriptions import with_example
from kalshi_platform.orchestration.resources import LakeResource, PlatformResource


class DryRunConfig(dg.Config):
    """Which databases are looked at."""

    only: list[str] = Field(default=[], description="`production` and names of gatherers; empty: all of them.")


@dg.op(
    name="dry_run",
    description="Compares what is old in the databases with the lake, and reads it back; changes nothing.",
)
def dry_run(
    context: dg.OpExecutionContext, config: DryRunConfig, platform: PlatformResource, lake: LakeResource
) -> None:
    """Say what would go and what would stay, in the output's metadata and in the run's log."""
    from kalshi_platform.lake.retention.apply import apply_retention

    with as_failure():
        report = apply_retention(lake.retention(), platform.clock, dry_run=True, only=config.only)
    context.add_output_metadata(retention_metadata(report))
    context.log.info(
        "retention_dry_run would_go=%s rows=%s bytes=%s stay=%s",
        len(report.gone),
        sum(each.rows for each in report.gone),
        sum(each.bytes for each in report.gone),
        len(report.refused),
    )


@dg.job(
    name="retention_dry_run",
    executor_def=dg.in_process_executor,
    config=dg.RunConfig(ops={"dry_run": DryRunConfig()}),
    tags={"kalshi/kind": "batch"},
    description=with_example(
        "Says which partitions of the databases retention would drop now, and which stay although they are old "
        "enough, with the reason and the remedy of each: tables in the metadata of the step's output. Nothing changes.",
        """
        ops:
          dry_run:
            config:
              only: [g1, production]
        """,
    ),
)
def retention_dry_run_job() -> None:
    """Run the dry run."""
    dry_run()
