"""What a code location serves, that serving it needs no settings, and what a bad setting gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster_shared.yaml_utils import load_run_config_yaml

from kalshi_platform import config
from kalshi_platform.definitions import defs
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.asset_pages import NO_TABLE, REPOSITORY, list_documents, page_of
from kalshi_platform.orchestration.build import CodeLocation, build
from kalshi_platform.orchestration.checks.newest_partitions import CHECK_NAME
from kalshi_platform.orchestration.freshness_policies import ON_DEMAND, POLICIES
from kalshi_platform.orchestration.partitions import list_bucket_keys

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
    "lake/raw/frames/g1",
    "lake/raw/frames/g2",
    "lake/raw/frames/g3",
    "lake/lifecycle_rules",
    "lake/retention",
    "lake/dagster_retention",
    "lake/tables",
}
FRAMES = {key for key in ASSETS if key.startswith("lake/raw/frames/")}
JOBS = {
    "gather",
    "archive_frames",
    "rebuild_tables",
    "dedup_live",
    "sync_catalog",
    "merge_catalog",
    "close_hours",
    "rebuild_hour",
    "export_hours",
    "export_days",
    "backfill_trades",
    "apply_lifecycle_rules",
    "retention",
    "retention_dry_run",
    "register_tables",
    "switch_services",
    "rotate_gatherers",
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
    "archive_frames_schedule",
}
SENSORS = {
    "gatherer_sensor",
    "deduplicator_sensor",
    "closes_sensor",
    "newest_partitions_sensor",
    "alerts",
    "run_failure_alerts",
    "dead_runs_sensor",
}


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
        ASSETS - FRAMES,
        JOBS - {"gather", "archive_frames", "rebuild_tables"},
        SCHEDULES - {"archive_frames_schedule"},
        SENSORS - {"gatherer_sensor"},
    )


def test_the_role_of_a_gatherer_serves_its_run_and_the_archive_of_its_frames() -> None:
    served = build(location(config.Role("gatherer", "g2")))
    assets, jobs, schedules, sensors = names(served)
    assert assets == {"lake/raw/frames/g2", "kalshi/websocket"}, "the second is known as what the first depends on"
    assert jobs == {"gather", "archive_frames", "rebuild_tables", "switch_services"}
    assert (schedules, sensors) == ({"archive_frames_schedule"}, {"gatherer_sensor"})
    assert not served.resolve_asset_graph().get(keys.WEBSOCKET).is_materializable
    assert served.resolve_job_def("gather").partitions_def.get_partition_keys() == ["g2"]  # type: ignore[union-attr]


def test_without_an_archive_of_frames_nothing_of_it_is_served() -> None:
    served = build(replace(location(config.Role()), archive_frames=False))
    assert names(served) == (
        ASSETS - FRAMES,
        JOBS - {"archive_frames"},
        SCHEDULES - {"archive_frames_schedule"},
        SENSORS,
    )


def examples_of(job: dg.JobDefinition) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", job.description or "", re.DOTALL)


@pytest.mark.parametrize("name", sorted(JOBS))
def test_a_job_has_a_description_and_its_examples_of_run_config_fit(everything: dg.Definitions, name: str) -> None:
    job = everything.resolve_job_def(name)
    assert job.description
    assert examples_of(job) or name not in {"switch_services", "rotate_gatherers", "retention_dry_run", "rebuild_hour"}
    for example in examples_of(job):
        config = load_run_config_yaml(example)  # as the launchpad reads it
        assert dg.validate_run_config(job, config)


def test_buckets_of_hours_are_served_where_they_are_asked_for() -> None:
    served = build(replace(location(config.Role("platform")), close_buckets=4))
    assets, jobs, schedules, _ = names(served)
    assert assets == ASSETS - FRAMES | {"production/hour_parts"}
    assert "close_buckets" in jobs
    of_platform = SCHEDULES - {"archive_frames_schedule"}
    assert schedules == of_platform - {"close_hours_schedule"} | {"close_buckets_schedule"}
    (spec,) = [each for each in served.resolve_all_asset_specs() if each.key == keys.HOUR_PARTS]
    assert spec.owners
    assert spec.group_name == "production"
    assert isinstance(spec.partitions_def, dg.MultiPartitionsDefinition)
    assert spec.partitions_def.partition_dimension_names == ["bucket", "hour"]
    assert list_bucket_keys(4) == ["1/4", "2/4", "3/4", "4/4"]


@pytest.mark.parametrize("name", sorted(JOBS))
def test_a_job_launched_as_it_is_has_the_config_that_it_needs(everything: dg.Definitions, name: str) -> None:
    job = everything.resolve_job_def(name)
    assert dg.validate_run_config(job, job.run_config or {})


def test_switching_in_the_ui_begins_with_every_service_of_the_location(everything: dg.Definitions) -> None:
    config = everything.resolve_job_def("switch_services").run_config
    assert config is not None
    assert config["ops"]["switch"]["config"] == {
        "services": ["gatherer/g1", "gatherer/g2", "gatherer/g3", "deduplicator"],
        "enabled": True,
        "reason": "",
    }


def test_every_partitioned_asset_backfills_a_range_in_one_run(everything: dg.Definitions) -> None:
    one_dimension = (dg.TimeWindowPartitionsDefinition, dg.StaticPartitionsDefinition)
    found = [
        assets
        for assets in everything.resolve_asset_graph().assets_defs
        if assets.is_materializable and isinstance(assets.partitions_def, one_dimension)
    ]
    assert len(found) > 20
    for assets in found:
        assert assets.backfill_policy == dg.BackfillPolicy.single_run(), assets.keys


def test_every_data_set_of_the_lake_descends_from_the_exchange(everything: dg.Definitions) -> None:
    graph = everything.get_repository_def().asset_graph
    for raw in keys.LAKE_RAW:
        assert keys.WEBSOCKET in graph.get_ancestor_asset_keys(raw), raw
    for daily in keys.LAKE_DAILY:
        assert {keys.WEBSOCKET, keys.REST} & graph.get_ancestor_asset_keys(daily), daily
    for catalog in keys.PRODUCTION_CATALOG:
        assert keys.REST in graph.get_ancestor_asset_keys(catalog)


def test_every_asset_says_what_it_is_and_whose(everything: dg.Definitions) -> None:
    for spec in everything.resolve_all_asset_specs():
        assert len(spec.description or "") > 30, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.group_name in {"kalshi", "gatherer", "production", "lake"}, spec.key


def test_every_asset_shows_its_columns_with_units_or_what_else_it_is_made_of(everything: dg.Definitions) -> None:
    specs = {spec.key.to_user_string(): spec for spec in everything.resolve_all_asset_specs()}
    for key, spec in specs.items():
        schema = spec.metadata.get("dagster/column_schema")
        assert (schema is None) == (page_of(key) in NO_TABLE), key
        assert spec.metadata["columns"] if schema is None else all(each.description for each in schema.columns), key
    deltas = {
        each.name: each for each in specs["production/orderbook_deltas"].metadata["dagster/column_schema"].columns
    }
    assert deltas["price_e4"].description.endswith("In 1/10,000 dollar.")
    assert not deltas["price_e4"].constraints.nullable
    candles = specs["lake/aggregates/candles_1m"].metadata["dagster/column_schema"].columns
    assert any(column.description.endswith("In dollars.") for column in candles)


def test_every_asset_has_a_freshness_policy_or_the_reason_for_none(everything: dg.Definitions) -> None:
    specs = {spec.key: spec for spec in everything.resolve_all_asset_specs()}
    frames = {key for key in specs if keys.is_frames(key)}
    assert set(specs) - frames | {keys.HOUR_PARTS} == set(POLICIES) | set(ON_DEMAND)
    for key, spec in specs.items():
        assert (spec.freshness_policy is None) == (key in ON_DEMAND), key
        assert spec.freshness_policy or spec.metadata["freshness"], key


def test_every_hourly_and_daily_asset_is_judged_by_its_newest_partition(everything: dg.Definitions) -> None:
    judged = {key.asset_key for key in everything.resolve_asset_graph().asset_check_keys if key.name == CHECK_NAME}
    by_time = {
        spec.key
        for spec in everything.resolve_all_asset_specs()
        if isinstance(spec.partitions_def, dg.TimeWindowPartitionsDefinition)
    }
    # Whether frames are archived is known on the gatherer's host alone.
    assert judged == {key for key in by_time - set(ON_DEMAND) if not keys.is_frames(key)}
    for job in ("close_hours", "rebuild_hour", "export_hours", "export_days"):
        assert "newest_partitions" not in {node.name for node in everything.resolve_job_def(job).nodes}, job


def test_every_asset_links_to_headings_of_documents_that_exist(everything: dg.Definitions) -> None:
    for spec in everything.resolve_all_asset_specs():
        documents = list_documents(spec.key.to_user_string())
        assert documents, spec.key
        for document in documents:
            file, _, wanted = document.partition("#")
            headings = re.findall(r"^#+ (.+)$", (CHECKOUT / "docs" / file).read_text(encoding="utf-8"), re.MULTILINE)
            found = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
            assert wanted in found, f"{spec.key}: {document}"
            assert f"{REPOSITORY}/blob/main/docs/{document}" in spec.metadata["docs"].value
    assert f'"{REPOSITORY}/tree/main/docs"' in (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_asset_refers_to_files_of_this_repository(everything: dg.Definitions) -> None:
    for spec in everything.resolve_all_asset_specs():
        references = spec.metadata["dagster/code_references"].code_references
        for reference in references:
            if isinstance(reference, dg.UrlCodeReference):
                path = reference.url.removeprefix(f"{REPOSITORY}/blob/main/").partition("#")[0]
                assert (CHECKOUT / path).is_file(), f"{spec.key}: {path}"
            else:
                lines = Path(reference.file_path).read_text(encoding="utf-8").splitlines()
                assert 1 <= reference.line_number <= len(lines), spec.key
        assert {type(reference) for reference in references} == {dg.UrlCodeReference, dg.LocalFileCodeReference}


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


def test_dagster_with_nothing_configured_validates_the_workspace(tmp_path: Path) -> None:
    for name in ("dagster.yaml", "workspace.yaml"):
        (tmp_path / name).write_text((CHECKOUT / name).read_text(encoding="utf-8"), encoding="utf-8")
    done = run_python(tmp_path, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validation successful for code location kalshi_platform" in done.stdout + done.stderr


def test_dg_check_defs_with_bad_settings_shows_each_with_its_remedy(tmp_path: Path) -> None:
    """Loads the definitions by what pyproject.toml says of them ([tool.dg])."""
    wrong = {"KALSHI_PARTITIONS_START": "nonsense", "KALSHI_ROLE": "x"}
    done = run_python(tmp_path, "-m", "dagster_dg_cli.cli", "check", "defs", "--target-path", str(CHECKOUT), **wrong)
    text = done.stdout + done.stderr
    assert done.returncode != 0, text
    assert "Validation failed for code location kalshi_platform" in text
    assert "KALSHI_PARTITIONS_START is 'nonsense': set it to a date such as 2026-01-01" in text
    assert "KALSHI_ROLE is 'x': set it to all, platform or one of gatherer:g1, gatherer:g2, gatherer:g3" in text


def test_definitions_with_bad_settings_raise_one_error_when_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_PARTITIONS_START", "nonsense")
    monkeypatch.setenv("KALSHI_ROLE", "x")
    with pytest.raises(ConfigurationError) as raised:
        defs()
    assert [problem.split()[0] for problem in raised.value.problems] == ["KALSHI_ROLE", "KALSHI_PARTITIONS_START"]
