"""The live merge: one endless run, started and restarted by `deduplicator_sensor`."""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.jobs.hosting import host
from kalshi_platform.orchestration.jobs.reports import merge_events
from kalshi_platform.orchestration.jobs.rotation import merge_hosting
from kalshi_platform.orchestration.resources import ProductionDatabase
from kalshi_platform.orchestration.services import DEDUP_JOB, DEDUPLICATOR, service_tags

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.merge.merge_pass import MergeReport


@dg.op(
    name="merge", description="Merges what all gatherers recorded into production, every few seconds, until stopped."
)
def merge(context: dg.OpExecutionContext, production_database: ProductionDatabase) -> None:
    def serve(stop: threading.Event, on_report: "Callable[[MergeReport], None]") -> None:
        from kalshi_platform.deduplicator.live.live_merger import LiveMerger

        LiveMerger(
            production_database.settings(),
            production_database.clock,
            production_database.bounds(),
            run_id=context.run_id,
            on_report=on_report,
        ).run(stop)

    def events_of(reports: "Sequence[MergeReport]") -> list[dg.AssetObservation]:
        return merge_events(reports)

    with as_failure():
        reason = host(context, DEDUPLICATOR, serve, events_of, hosting=merge_hosting())
    context.log.info(f"{DEDUPLICATOR}: {reason}")


def dedup_live_job() -> dg.JobDefinition:
    """The job of the live merge."""

    @dg.job(
        name=DEDUP_JOB,
        executor_def=dg.in_process_executor,
        tags={**service_tags(DEDUPLICATOR), "kalshi/kind": "endless"},
        description="One endless run: all gatherers → production, every few seconds.",
    )
    def dedup_live() -> None:
        merge()

    return dedup_live
