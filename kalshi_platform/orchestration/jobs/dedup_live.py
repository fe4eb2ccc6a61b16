"""The live merge: one long-running run, started and restarted by `deduplicator_sensor`."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.jobs.asset_events import make_merge_events
from kalshi_platform.orchestration.jobs.long_running import run_service
from kalshi_platform.orchestration.jobs.rotation import merge_timing
from kalshi_platform.orchestration.resources import ProductionDatabase
from kalshi_platform.orchestration.services import DEDUP_JOB, DEDUPLICATOR, service_tags

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.merge.merge_pass import MergeReport


@dg.op(
    name="merge", description="Merges what all gatherers recorded into production, every few seconds, until stopped."
)
def merge(context: dg.OpExecutionContext, production_database: ProductionDatabase) -> None:
    """Host the live merge."""

    def serve(stop: threading.Event, on_report: "Callable[[MergeReport], None]") -> None:
        from kalshi_platform.deduplicator.live.live_merger import LiveMerger

        LiveMerger(
            production_database.settings(),
            production_database.clock,
            production_database.bounds(),
            run_id=context.run_id,
            on_report=on_report,
        ).run(stop)

    with as_failure():
        reason = run_service(context, DEDUPLICATOR, serve, make_merge_events, timing=merge_timing())
    context.log.info("service_ended service=%s reason=%r", DEDUPLICATOR, reason)


def make_dedup_live_job() -> dg.JobDefinition:
    """Make the job of the live merge."""

    @dg.job(
        name=DEDUP_JOB,
        executor_def=dg.in_process_executor,
        tags={**service_tags(DEDUPLICATOR), "kalshi/kind": "long-running"},
        description="One long-running run: all gatherers → production, every few seconds.",
    )
    def dedup_live() -> None:
        merge()

    return dedup_live
