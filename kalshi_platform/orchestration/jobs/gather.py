"""The gather job: one long-running run per gatherer, started and restarted by `gatherer_sensor`."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from kalshi_platform import config
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.jobs.asset_events import make_gather_events
from kalshi_platform.orchestration.jobs.long_running import run_service
from kalshi_platform.orchestration.jobs.rotation import another_gatherer_is_recording, gatherer_timing
from kalshi_platform.orchestration.resources import WebSocketIngestor
from kalshi_platform.orchestration.services import GATHER_JOB, gatherer_service_name, service_tags

if TYPE_CHECKING:
    from kalshi_platform.gatherer.status.reports import Report


@dg.op(
    name="record",
    description="Records what the exchange publishes until it is stopped; then writes what it still holds.",
)
def record(context: dg.OpExecutionContext, ingestor: WebSocketIngestor) -> None:
    """Host the gatherer that the run's partition names."""
    name = context.partition_key

    def serve(stop: threading.Event, on_report: "Callable[[Report], None]") -> None:
        ingestor.run(name, stop, on_report, context.run_id)

    with as_failure():
        names = config.gatherer_names()
        reason = run_service(
            context,
            gatherer_service_name(name),
            serve,
            partial(make_gather_events, name),
            timing=gatherer_timing(name, names),
            may_rotate=lambda: another_gatherer_is_recording(name, names),
        )
    context.log.info("service_ended service=%s reason=%r", gatherer_service_name(name), reason)


def make_gather_job(names: Sequence[str]) -> dg.JobDefinition:
    """Make the job for these gatherers, one partition each."""
    partitioned = dg.static_partitioned_config(
        partition_keys=list(names), tags_for_partition_key_fn=lambda key: service_tags(gatherer_service_name(key))
    )(lambda _: {})

    @dg.job(
        name=GATHER_JOB,
        config=partitioned,
        executor_def=dg.in_process_executor,
        tags={"dagster/max_retries": "0", "kalshi/kind": "long-running"},
        description="One long-running run per gatherer: exchange WebSocket and REST → the gatherer's databases.",
    )
    def gather() -> None:
        record()

    return gather
