"""What a code location serves, that serving it needs no settings, and what a bad setting gives."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from kalshi_platform import config
from kalshi_platform.definitions import defs
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.build import CodeLocation, build

CHECKOUT = Path(__file__).parents[3]

ASSETS = {
    "kalshi/rest",
    "kalshi/websocket",
    "gatherer/exchange_status",
    "gatherer/series",
    "gatherer/events",
    "gatherer/markets",
    "gatherer/rest_snapshots",
    "gatherer/orderbook_deltas",
    "gatherer/orderbook_snapshots",
    "gatherer/trades",
    "gatherer/tickers",
    "gatherer/market_lifecycle",
    "production/series",
    "production/events",
    "production/markets",
    "production/orderbook_deltas",
    "production/trades",
    "production/tickers",
    "production/orderbook_snapshots",
    "production/market_lifecycle",
    "production/book_checkpoints",
    "production/coverage",
    "production/trades_backfill",
    *(f"lake/{key}" for key in DATASETS),
    "lake/lifecycle_rules",
    "lake/retention",
    "lake/dagster_retention",
    "lake/tables",
}
JOBS = {
    "gather",
    "dedup_live",
    "sync_catalog",
    "merge_catalog",
    "close_hours",
    "export_days",
    "backfill_trades",
    "apply_lifecycle_rules",
    "retention",
    "register_tables",
}
SCHEDULES = {
    "sync_catalog_when_stale",
    "merge_catalog_schedule",
    "close_hours_schedule",
    "export_days_schedule",
    "fill_missing_partitions",
    "fill_missing_days",
    "compare_trades_again",
    "apply_lifecycle_rules_schedule",
    "retention_schedule",
    "register_tables_schedule",
    "compare_all_tables",
}
SENSORS = {"gatherer_sensor", "deduplicator_sensor", "closes_sensor"}


def location(role: config.Role) -> CodeLocation:
    return CodeLocation(role, ("g1", "g2", "g3"), datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def everything() -> dg.Definitions:
    return build(location(config.Role()))


def names(definitions: dg.Definitions) -> tuple[set[str], set[str], set[str], set[str]]:
    repository = definitions.get_repository_def()
    return (
        {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()},
        {job.name for job in repository.get_all_jobs()} - {"__ASSET_JOB"},
        {schedule.name for schedule in repository.schedule_defs},
        {sensor.name for sensor in repository.sensor_defs},
    )


def test_the_role_all_serves_everything(everything: dg.Definitions) -> None:
    assert names(everything) == (ASSETS, JOBS, SCHEDULES, SENSORS)


def test_the_role_platform_serves_all_but_the_gatherers() -> None:
    assert names(build(location(config.Role("platform")))) == (
        ASSETS,
        JOBS - {"gather"},
        SCHEDULES,
        {"deduplicator_sensor", "closes_sensor"},
    )


def test_the_role_of_a_gatherer_serves_its_run_and_no_assets() -> None:
    served = build(location(config.Role("gatherer", "g2")))
    assert names(served) == (set(), {"gather"}, set(), {"gatherer_sensor"})
    assert served.resolve_job_def("gather").partitions_def.get_partition_keys() == ["g2"]  # type: ignore[union-attr]


def test_every_data_set_of_the_lake_descends_from_the_exchange(everything: dg.Definitions) -> None:
    graph = everything.get_repository_def().asset_graph
    for raw in keys.LAKE_RAW:
        assert keys.WEBSOCKET in graph.get_ancestor_asset_keys(raw), raw
    for daily in keys.LAKE_DAILY:
        assert {keys.WEBSOCKET, keys.REST} & graph.get_ancestor_asset_keys(daily), daily
    for catalog in keys.PRODUCTION_CATALOG:
        assert keys.REST in graph.get_ancestor_asset_keys(catalog)


def test_every_asset_has_a_description_owners_kinds_and_a_group(everything: dg.Definitions) -> None:
    for spec in everything.resolve_all_asset_specs():
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.group_name in {"kalshi", "gatherer", "production", "lake"}, spec.key


def test_every_table_shows_its_columns_with_units(everything: dg.Definitions) -> None:
    specs = {spec.key: spec for spec in everything.resolve_all_asset_specs()}
    without = {keys.REST, keys.WEBSOCKET, keys.EXCHANGE_STATUS, keys.LIFECYCLE_RULES}
    without |= {keys.RETENTION, keys.DAGSTER_RETENTION, keys.LAKE_TABLES}
    for key, spec in specs.items():
        if key in without:
            continue
        schema = spec.metadata["dagster/column_schema"]
        assert schema.columns, key
    deltas = specs[keys.production("orderbook_deltas")].metadata["dagster/column_schema"].columns
    prices = {column.name: column for column in deltas}
    assert prices["price_e4"].description.endswith("In 1/10,000 dollar.")
    assert not prices["price_e4"].constraints.nullable
    candles = specs[keys.lake("aggregates/candles_1m")].metadata["dagster/column_schema"].columns
    assert any(column.description and column.description.endswith("In dollars.") for column in candles)


def test_long_running_jobs_are_never_retried_by_dagster(everything: dg.Definitions) -> None:
    for name in ("gather", "dedup_live"):
        assert everything.resolve_job_def(name).tags["dagster/max_retries"] == "0"


def test_a_gather_run_is_tagged_with_its_service(everything: dg.Definitions) -> None:
    job = everything.resolve_job_def("gather")
    assert job.get_tags_for_partition_key("g1", None)["kalshi/service"] == "gatherer/g1"


def run_python(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(CHECKOUT), **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


LOAD_DEFINITIONS = """
import socket, sys
def refuse(*a, **k): raise SystemExit("a socket was opened")
socket.socket.connect = refuse
from kalshi_platform.definitions import defs
defs().get_repository_def()
heavy = {"polars", "matplotlib", "requests", "websocket", "boto3"} & set(sys.modules)
assert not heavy, heavy
"""


def test_definitions_in_an_empty_environment_load_without_a_socket(tmp_path: Path) -> None:
    done = run_python(tmp_path, "-c", LOAD_DEFINITIONS)
    assert done.returncode == 0, done.stdout + done.stderr


def validate(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    for name in ("dagster.yaml", "workspace.yaml"):
        (folder / name).write_text((CHECKOUT / name).read_text(encoding="utf-8"), encoding="utf-8")
    return run_python(folder, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml", **variables)


def test_dagster_with_nothing_configured_validates_the_workspace(tmp_path: Path) -> None:
    done = validate(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation successful for code location kalshi_platform" in done.stdout + done.stderr


def test_dagster_with_bad_settings_shows_each_with_its_remedy(tmp_path: Path) -> None:
    done = validate(tmp_path, KALSHI_PARTITIONS_START="nonsense", KALSHI_ROLE="x")
    text = done.stdout + done.stderr
    assert done.returncode != 0, text
    assert "KALSHI_PARTITIONS_START is 'nonsense': set it to a date such as 2026-01-01" in text
    assert "KALSHI_ROLE is 'x': set it to all, platform or one of gatherer:g1, gatherer:g2, gatherer:g3" in text


def test_definitions_with_bad_settings_raise_one_error_when_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_PARTITIONS_START", "nonsense")
    monkeypatch.setenv("KALSHI_ROLE", "x")
    with pytest.raises(ConfigurationError) as raised:
        defs()
    assert [problem.split()[0] for problem in raised.value.problems] == ["KALSHI_ROLE", "KALSHI_PARTITIONS_START"]
