"""A backfill as the UI launches it: Dagster's own machinery over a range of the platform's assets."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration

from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.partitions import hour_key
from kalshi_platform_tests.integration.orchestration.conftest import Platform, hour


# Of Dagster's own calls, and of its generator that runs an event loop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_backfill_over_three_hours_closes_and_exports_them_in_one_run(platform: Platform) -> None:
    for number in range(3):
        platform.seed(number)
    wanted = [hour_key(hour(number)) for number in range(3)]
    selection = [*keys.PRODUCTION_HOURLY, keys.lake("raw/trades")]
    target = InProcessWorkspaceLoadTarget(
        InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="kalshi_platform.definitions", attribute="defs"))
    )
    with WorkspaceProcessContext(platform.instance, target) as workspace:
        graph = workspace.create_request_context().asset_graph
        platform.instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id="threehours",
                asset_graph=graph,
                partition_names=wanted,
                asset_selection=selection,
                backfill_timestamp=datetime.now(UTC).timestamp(),
                tags={},
                dynamic_partitions_store=platform.instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )
        for _ in range(3):  # the daemon's loop: request the run, see that it is done, end
            assert [
                error for error in execute_backfill_iteration(workspace, logging.getLogger("backfill")) if error
            ] == []
    done = platform.instance.get_backfill("threehours")
    assert done is not None
    assert done.status is BulkActionStatus.COMPLETED_SUCCESS
    runs = platform.instance.get_runs()
    assert all(run.status is dg.DagsterRunStatus.SUCCESS for run in runs)
    assert len(runs) == 1, "a range of hours is one run"
    for key in selection:
        assert platform.instance.get_materialized_partitions(key) == set(wanted)
