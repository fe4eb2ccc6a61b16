"""Dagster's own storage as `dagster.yaml` configures it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance import InstanceRef
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster_postgres.storage import DagsterPostgresStorage

from kalshi_platform_tests.fixtures.postgres import DatabaseFactory

CHECKOUT = Path(__file__).parents[3]


@dg.asset
def something() -> None: ...


def test_any_form_of_url_makes_dagster_postgres_store_runs(
    database_factory: DatabaseFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database_factory()
    assert url.startswith("postgresql://")
    monkeypatch.setenv("DAGSTER_DATABASE_URL", url)
    monkeypatch.chdir(tmp_path)
    reference = InstanceRef.from_dir(str(tmp_path), config_dir=str(CHECKOUT))
    with dg.DagsterInstance.from_ref(reference) as instance:
        assert isinstance(reference.storage, DagsterPostgresStorage)
        result = dg.materialize([something], instance=instance)
        run_id = result.run_id
    with dg.DagsterInstance.from_ref(reference) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.SUCCESS
        assert instance.get_latest_materialization_event(something.key) is not None


def test_without_a_url_files_below_the_state_folder_store_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_DATABASE_URL", raising=False)
    monkeypatch.setenv("KALSHI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    reference = InstanceRef.from_dir(str(tmp_path), config_dir=str(CHECKOUT))
    with dg.DagsterInstance.from_ref(reference) as instance:
        assert isinstance(reference.storage, DagsterSqliteStorage)
        run_id = dg.materialize([something], instance=instance).run_id
    assert (tmp_path / "state" / "dagster").is_dir()
    assert list((tmp_path / "state" / "dagster").rglob("*.db"))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(CHECKOUT))) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.SUCCESS
        assert instance.get_latest_materialization_event(something.key) is not None


def test_the_instance_settings_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_DATABASE_URL", raising=False)
    monkeypatch.setenv("KALSHI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(CHECKOUT))) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 40
        assert {"key": "kalshi/kind", "value": "batch", "limit": 2} in queue.tag_concurrency_limits
        assert instance.run_coordinator.dequeue_interval_seconds == 1  # type: ignore[attr-defined]
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_cancel_timeout_seconds == 60
        assert not instance.telemetry_enabled
        assert instance.global_op_concurrency_default_limit == 1
