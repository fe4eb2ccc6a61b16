"""What a code location serves, and that serving it needs no settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from kalshi_platform import config
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.build import build

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
    "production/book_anchors",
    "production/trades_backfill",
    "lake/raw/orderbook_deltas",
    "lake/raw/trades",
    "lake/raw/tickers",
    "lake/raw/orderbook_snapshots",
    "lake/raw/market_lifecycle",
    "lake/raw/book_anchors",
    "lake/processed/trades",
    "lake/aggregates/candles_1m",
    "lake/lifecycle_rules",
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
}
SENSORS = {"gatherer_sensor", "deduplicator_sensor"}


@pytest.fixture(scope="module")
def everything() -> dg.Definitions:
    return build(config.Role())


def names(defs: dg.Definitions) -> tuple[set[str], set[str], set[str], set[str]]:
    repository = defs.get_repository_def()
    return (
        {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()},
        {job.name for job in repository.get_all_jobs()} - {"__ASSET_JOB"},
        {schedule.name for schedule in repository.schedule_defs},
        {sensor.name for sensor in repository.sensor_defs},
    )


def test_the_role_all_serves_everything(everything: dg.Definitions) -> None:
    assert names(everything) == (ASSETS, JOBS, SCHEDULES, SENSORS)


def test_the_role_platform_serves_all_but_the_gatherers() -> None:
    assert names(build(config.Role("platform"))) == (ASSETS, JOBS - {"gather"}, SCHEDULES, {"deduplicator_sensor"})


def test_the_role_of_a_gatherer_serves_its_run_and_no_assets() -> None:
    defs = build(config.Role("gatherer", "g2"))
    assert names(defs) == (set(), {"gather"}, set(), {"gatherer_sensor"})
    assert defs.resolve_job_def("gather").partitions_def.get_partition_keys() == ["g2"]  # type: ignore[union-attr]


def test_every_table_can_be_followed_from_the_websocket_to_the_lake(everything: dg.Definitions) -> None:
    graph = everything.get_repository_def().asset_graph
    for raw in keys.LAKE_RAW:
        assert keys.WEBSOCKET in graph.get_ancestor_asset_keys(raw), raw
    for daily in keys.LAKE_DAILY:
        assert keys.lake("raw/trades") in graph.get_ancestor_asset_keys(daily)
    for catalog in keys.PRODUCTION_CATALOG:
        assert keys.REST in graph.get_ancestor_asset_keys(catalog)


def test_every_asset_says_what_it_is_and_who_answers_for_it(everything: dg.Definitions) -> None:
    for spec in everything.resolve_all_asset_specs():
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.group_name in {"kalshi", "gatherer", "production", "lake"}, spec.key


def test_every_table_shows_its_columns_with_units(everything: dg.Definitions) -> None:
    specs = {spec.key: spec for spec in everything.resolve_all_asset_specs()}
    without = {keys.REST, keys.WEBSOCKET, keys.EXCHANGE_STATUS, keys.LIFECYCLE_RULES}
    for key, spec in specs.items():
        if key in without:
            continue
        schema = spec.metadata["dagster/column_schema"]
        assert schema.columns, key
    deltas = specs[keys.production("orderbook_deltas")].metadata["dagster/column_schema"].columns
    prices = {column.name: column for column in deltas}
    assert prices["price_e4"].description == "1/10,000 dollar"
    assert not prices["price_e4"].constraints.nullable
    candles = specs[keys.lake("aggregates/candles_1m")].metadata["dagster/column_schema"].columns
    assert any(column.description and column.description.startswith("dollars;") for column in candles)


def test_the_endless_runs_are_never_retried_by_dagster(everything: dg.Definitions) -> None:
    for name in ("gather", "dedup_live"):
        assert everything.resolve_job_def(name).tags["dagster/max_retries"] == "0"


def test_a_gather_run_is_tagged_with_its_service(everything: dg.Definitions) -> None:
    job = everything.resolve_job_def("gather")
    assert job.get_tags_for_partition_key("g1", None)["kalshi/service"] == "gatherer/g1"


def clean_environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(CHECKOUT)}


def test_definitions_load_in_an_empty_environment_without_a_socket(tmp_path: Path) -> None:
    program = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "from kalshi_platform.definitions import defs\n"
        "defs.get_repository_def()\n"
        "import sys\n"
        "heavy = {'polars', 'matplotlib', 'requests', 'websocket', 'boto3'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dagster_validates_the_workspace_with_nothing_configured(tmp_path: Path) -> None:
    for name in ("dagster.yaml", "workspace.yaml"):
        (tmp_path / name).write_text((CHECKOUT / name).read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        env=clean_environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation successful for code location kalshi_platform" in done.stdout + done.stderr
