"""The lake's S3 rules, applied by the asset and read back by its check, on a real S3 server."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.orchestration.assets.lifecycle_rules import lifecycle_reads_back
from kalshi_platform.orchestration.resources import LakeResource
from kalshi_platform_tests.integration.orchestration.conftest import Platform


def on_s3(monkeypatch: pytest.MonkeyPatch, settings: LakeSettings) -> None:
    monkeypatch.setenv("KALSHI_LAKE_ROOT", settings.root)
    monkeypatch.setenv("KALSHI_S3_ENDPOINT_URL", str(settings.endpoint_url))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def run(platform: Platform) -> bool:
    """Run the job; return whether the check passed."""
    done = platform.defs.resolve_job_def("apply_lifecycle_rules").execute_in_process(instance=platform.instance)
    assert done.success
    evaluations = done.get_asset_check_evaluations()
    assert [evaluation.check_name for evaluation in evaluations] == ["lifecycle_reads_back"]
    return evaluations[0].passed


def test_the_asset_applies_the_rules_and_the_check_reads_them_back(
    platform: Platform, s3_settings: LakeSettings, s3_client: Any, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_s3(monkeypatch, s3_settings)
    assert run(platform)
    rules = s3_client.get_bucket_lifecycle_configuration(Bucket=s3_bucket)["Rules"]
    moved = {
        rule["Filter"]["Prefix"]: [(step["Days"], step["StorageClass"]) for step in rule["Transitions"]]
        for rule in rules
        if rule.get("Transitions")
    }
    assert moved == {"some/prefix/raw/": [(30, "GLACIER")], "some/prefix/processed/": [(90, "STANDARD_IA")]}


def test_the_check_fails_when_the_rules_were_removed(
    platform: Platform, s3_settings: LakeSettings, s3_client: Any, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_s3(monkeypatch, s3_settings)
    assert run(platform)
    s3_client.delete_bucket_lifecycle(Bucket=s3_bucket)
    found = lifecycle_reads_back(lake=LakeResource())
    assert isinstance(found, dg.AssetCheckResult)
    assert not found.passed
    assert run(platform)
