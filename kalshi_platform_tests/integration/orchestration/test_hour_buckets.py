"""Hours closed in buckets by Dagster's backfill are the hours that one piece closes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import datetime

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.market.times import US_PER_HOUR, US_PER_S
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.assets import hour_parts
from kalshi_platform.orchestration.build import build, load_code_location
from kalshi_platform.orchestration.partitions import HOUR_DIMENSION, hour_bucket_key, hour_key, list_bucket_keys
from kalshi_platform.orchestration.resources import LakeResource, ProductionDatabase
from kalshi_platform_tests.fixtures.hand_filled_gatherer import delta_row, snapshot_row, ticker_row, trade_row
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.integration.deduplicator.test_close_in_buckets import said
from kalshi_platform_tests.integration.orchestration.conftest import HOUR0_US, Platform, hour

BUCKETS, HOURS = 4, 3
HOUR_TAG = f"dagster/partition/{HOUR_DIMENSION}"
# Of Dagster's own code, about what it does between a code location and its daemon.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # Dagster leaves an event loop behind with each run that it executes in this process.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def workspace(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkspaceProcessContext]:
    """The daemon's view of a code location with buckets, in this process."""
    monkeypatch.setenv("KALSHI_CLOSE_BUCKETS", str(BUCKETS))
    monkeypatch.setattr(hour_parts, "plot_hour", lambda *_: {})  # they take longer than the close
    for name in [name for name in sys.modules if name == "kalshi_platform.definitions"]:
        monkeypatch.delitem(sys.modules, name)
    origin = LoadableTargetOrigin(executable_path=sys.executable, module_name="kalshi_platform.definitions")
    target = InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin, location_name="kalshi_platform"))
    with WorkspaceProcessContext(platform.instance, target) as context:
        yield context


def record_hours(platform: Platform) -> None:
    """Eight markets in three hours; each gatherer lacks a few deltas, and says so by a gap."""
    for number in range(HOURS):
        start = HOUR0_US + number * US_PER_HOUR + US_PER_S
        for index, gatherer in enumerate(platform.world.gatherers.values()):
            stream = 100 * (number + 1) + index
            tickers = [f"KXBUCKET-{n}" for n in range(8)]
            deltas = [
                delta_row(tickers[n % 8], ts_us=start + n * US_PER_S, seq=n + 9, stream_id=stream, delta_e2=100 + n)
                for n in range(64)
            ]
            kept = [row for n, row in enumerate(deltas) if n // 8 != index + 4]
            gatherer.commit(
                orderbook_deltas=kept,
                trades=[trade_row(t, f"{t}-{number}", ts_us=start) for t in tickers],
                tickers=[ticker_row(t, ts_us=start + number) for t in tickers],
                orderbook_snapshots=[
                    snapshot_row(t, received_us=start, stream_id=stream, seq=n + 1) for n, t in enumerate(tickers)
                ],
                segments=[(stream, 1, 8 + 8 * (index + 4)), (stream, 8 + 8 * (index + 5) + 1, 72)],
                book_subscriptions=[(stream, t, n + 1, 8 + 8 * (index + 4)) for n, t in enumerate(tickers)],
            )


def test_a_backfill_of_three_hours_in_four_buckets_says_what_closes_at_once_say(
    platform: Platform, workspace: WorkspaceProcessContext, database_factory: DatabaseFactory
) -> None:
    record_hours(platform)
    hours = [hour(number) for number in range(HOURS)]
    settings = ProductionDatabase().settings()
    elsewhere = database_factory("template_production")
    environ = {**config.environment(), "KALSHI_PRODUCTION_DATABASE_URL": elsewhere}
    at_once = config.load_deduplicator(environ)
    for each in hours:
        close_hour(at_once, each, SYSTEM_CLOCK, config.load_bounds())

    backfill(workspace, [hour_bucket_key(each, bucket) for each in hours for bucket in list_bucket_keys(BUCKETS)])

    runs = platform.instance.get_runs()
    assert len(runs) == HOURS * BUCKETS
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert {run.tags[HOUR_TAG] for run in runs} == {hour_key(each) for each in hours}
    assert said(settings.production_url) == said(elsewhere)
    for table in keys.PRODUCTION_TABLE_NAMES:
        made = platform.instance.get_materialized_partitions(keys.production(table))
        assert made == {hour_key(each) for each in hours}, table
    is_closed_by = materializations(platform.instance, keys.HOUR_PARTS)
    assert sum(bool(each.metadata["hour_is_closed"].value) for each in is_closed_by) == HOURS
    checks = {each.check_name for each in checks_of(platform.instance)}
    assert {"coverage_share", "identity_agreement", "book_proof", "all_gatherers_read"} <= checks
    # Only the exports are missing: the hours are closed.
    defs = build(load_code_location())
    for each in hours:
        assert missing(platform, defs, each) == set(keys.LAKE_RAW)


def test_the_schedule_requests_a_run_for_each_bucket_and_fills_in_while_none_works(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALSHI_CLOSE_BUCKETS", str(BUCKETS))
    platform.seed(0)
    merge_new(ProductionDatabase().settings(), SYSTEM_CLOCK, config.load_bounds())
    platform.defs = build(load_code_location())
    at = datetime.fromtimestamp((HOUR0_US + US_PER_HOUR) / 1e6, tz=hour(0).tzinfo)
    requests = platform.evaluate("close_buckets_schedule", at, production_database=ProductionDatabase())
    assert not isinstance(requests, str)
    assert [each.partition_key for each in requests] == [hour_bucket_key(hour(0), f"{n}/4") for n in range(1, 5)]
    assert len({each.run_key for each in requests}) == BUCKETS
    assert missing(platform, platform.defs, hour(0)) == {*keys.PRODUCTION_HOURLY, *keys.LAKE_RAW}
    platform.instance.create_run_for_job(
        platform.defs.resolve_job_def("close_buckets"),
        tags={HOUR_TAG: hour_key(hour(0))},
        asset_selection=frozenset({keys.HOUR_PARTS}),
        status=dg.DagsterRunStatus.STARTED,
    )
    assert missing(platform, platform.defs, hour(0)) == set(), "a bucket is worked on"
    monkeypatch.setenv("KALSHI_PARTITIONS_START", f"{at:%Y-%m-%dT%H:00}")
    early = platform.evaluate("close_buckets_schedule", at, production_database=ProductionDatabase())
    assert "lies before KALSHI_PARTITIONS_START" in early


def missing(platform: Platform, defs: dg.Definitions, of: datetime) -> set[dg.AssetKey]:
    """The assets of an hour that are requested because they are missing."""
    platform.defs = defs
    found = platform.evaluate("fill_missing_partitions", production_database=ProductionDatabase(), lake=LakeResource())
    assets: set[dg.AssetKey] = set()
    for each in [] if isinstance(found, str) else found:
        first = each.tags.get("dagster/asset_partition_range_start", each.partition_key or "")
        last = each.tags.get("dagster/asset_partition_range_end", each.partition_key or "")
        if first <= hour_key(of) <= last:
            assets.update(each.asset_selection or ())
    return assets


def backfill(workspace: WorkspaceProcessContext, chosen: list[dg.MultiPartitionKey]) -> None:
    """Launch a backfill as the UI does, and let the daemon work until it is over."""
    graph = workspace.create_request_context().asset_graph
    instance = workspace.instance
    instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id="buckets",
            asset_graph=graph,
            partition_names=chosen,
            asset_selection=[keys.HOUR_PARTS],
            backfill_timestamp=SYSTEM_CLOCK.now().timestamp(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
    )
    for _ in range(10):
        errors = [each for each in execute_backfill_iteration(workspace, logging.getLogger("backfill")) if each]
        assert errors == []
        found = instance.get_backfill("buckets")
        assert found is not None
        if found.status is BulkActionStatus.COMPLETED_SUCCESS:
            return
        for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])):
            instance.launch_run(run.run_id, workspace.create_request_context())
    raise AssertionError("the backfill did not end")


def materializations(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[dg.AssetMaterialization]:
    records = instance.fetch_materializations(key, limit=100).records
    return [each.asset_materialization for each in records if each.asset_materialization is not None]


def checks_of(instance: dg.DagsterInstance) -> list[dg.AssetCheckEvaluation]:
    found = []
    for run in instance.get_runs():
        for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            assert event.dagster_event is not None
            found.append(event.dagster_event.asset_check_evaluation_data)
    return found
