"""Retention under Dagster: old runs go from its storage, the last of each asset stays; the asset reports what went."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance import InstanceRef

from kalshi_platform.orchestration.old_runs import OldRuns, delete_old_runs
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.integration.orchestration.conftest import Platform, hour

CHECKOUT = Path(__file__).parents[3]
NAMES = dg.StaticPartitionsDefinition(["g1", "g2"])


@dg.asset(check_specs=[dg.AssetCheckSpec("fine", asset="often")])
def often() -> dg.MaterializeResult:  # type: ignore[type-arg]
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


@dg.asset
def once() -> None: ...


@dg.asset(partitions_def=NAMES)
def each() -> None: ...


def test_old_runs_go_and_the_last_of_each_asset_stays(
    database_factory: DatabaseFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database_factory()
    monkeypatch.setenv("DAGSTER_DATABASE_URL", url)
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(CHECKOUT))) as instance:
        both, middle, last = (
            dg.materialize(assets, instance=instance).run_id for assets in ([once, often], [often], [often])
        )
        of_names = {dg.materialize([each], instance=instance, partition_key=name).run_id for name in ("g1", "g2")}
        now = datetime.now(UTC)
        assert delete_old_runs(instance, now - timedelta(days=1), ("g1", "g2")) == OldRuns(0, 0, 0)
        ahead = now + timedelta(days=1)
        yesterday = now - timedelta(days=1)
        job = instance.get_run_records()[0].dagster_run.job_name
        assert delete_old_runs(instance, yesterday, services={"another": ahead}) == OldRuns(0, 0, 0)
        assert delete_old_runs(instance, yesterday, ("g1", "g2"), services={job: ahead}) == OldRuns(1, 4, 0)
        assert delete_old_runs(instance, ahead, ("g1", "g2")) == OldRuns(0, 4, 2)
        assert {record.dagster_run.run_id for record in instance.get_run_records()} == {both, last, *of_names}
        assert not instance.all_logs(middle)
        assert instance.get_materialized_partitions(each.key) == {"g1", "g2"}
        assert all(instance.get_latest_materialization_event(asset.key) for asset in (once, often, each))
        for number in range(3):  # as a sensor does, without a run
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(asset_key=often.key, check_name="fine", passed=True, metadata={"n": number})
            )
        assert delete_old_runs(instance, yesterday) == OldRuns(0, 0, 0)
        assert delete_old_runs(instance, ahead, ("g1", "g2")) == OldRuns(0, 4, 3, events=2)
        chosen = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        events = instance.event_log_storage.get_event_records(chosen)
        assert [record.run_id for record in events] == ["", last, both], "the newest stays, and those of runs that stay"


def test_the_asset_reports_what_went_and_what_stays(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.seed(0)
    monkeypatch.setenv("KALSHI_RETENTION_GATHERER_DAYS", "0.01")
    job = platform.defs.resolve_job_def("retention")
    done = job.execute_in_process(instance=platform.instance)
    assert done.success
    (check,) = done.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.severity) == ("nothing_refused", False, dg.AssetCheckSeverity.WARN)
    (event,) = done.asset_materializations_for_node("lake__retention")
    assert event.metadata["partitions_dropped"].value == 0
    refused = event.metadata["partitions_refused"].value
    assert isinstance(refused, int)
    assert refused >= 2, "the deltas of an hour, in both gatherers"
    assert f"| g1 | orderbook_deltas | {hour(0):%Y-%m-%dT%H} | 1 | production has not read" in str(
        event.metadata["stays"].value
    )
