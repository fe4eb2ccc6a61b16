"""The gather job: one endless run per gatherer, started and restarted by `gatherer_sensor`."""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform import config
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.jobs.hosting import host
from kalshi_platform.orchestration.jobs.reports import AssetEvent, gather_events
from kalshi_platform.orchestration.jobs.rotation import another_records, gatherer_hosting
from kalshi_platform.orchestration.resources import WebSocketIngestor
from kalshi_platform.orchestration.services import GATHER_JOB, gatherer_service_name, service_tags

if TYPE_CHECKING:
    from kalshi_platform.gatherer.status.reports import Report

LABELS = {"kalshi/kind": "endless"}


@dg.op(
    name="record",
    description="Records what the exchange publishes until it is asked to stop; then writes what it still holds.",
)
def record(context: dg.OpExecutionContext, ingestor: WebSocketIngestor) -> None:
    name = context.partition_key

    def serve(stop: threading.Event, on_report: "Callable[[Report], None]") -> None:
        ingestor.run(name, stop, on_report, context.run_id)

    def events_of(reports: "Sequence[Report]") -> list[AssetEvent]:
        return gather_events(name, reports)

    with as_failure():
        names = config.gatherer_names()
        reason = host(
            context,
            gatherer_service_name(name),
            serve,
            events_of,
            hosting=gatherer_hosting(name, names),
            may_rotate=lambda: another_records(name, names),
        )
    context.log.info(f"{name}: {reason}")


def gather_job(names: Sequence[str]) -> dg.JobDefinition:
    """The job for these gatherers, one partition each."""
    partitioned = dg.static_partitioned_config(
        partition_keys=list(names), tags_for_partition_key_fn=lambda key: service_tags(gatherer_service_name(key))
    )(lambda _: {})

    @dg.job(
        name=GATHER_JOB,
        config=partitioned,
        executor_def=dg.in_process_executor,
        tags={"dagster/max_retries": "0", **LABELS},
        description="One endless run per gatherer: exchange WebSocket and REST → the gatherer's databases.",
    )
    def gather() -> None:
        record()

    return gather
