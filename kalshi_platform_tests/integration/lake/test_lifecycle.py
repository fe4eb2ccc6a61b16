"""The rules of a bucket: applied, read back, and those of others left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lake import lifecycle
from kalshi_platform.lake.settings import LakeSettings

FOREIGN = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 9}}


def stored(s3_client: Any, bucket: str) -> dict[str, Any]:
    rules = s3_client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    return {rule["ID"]: rule for rule in rules}


def test_the_rules_are_applied_and_read_back(s3_settings: LakeSettings, s3_client: Any, s3_bucket: str) -> None:
    before = lifecycle.read_back(s3_settings)
    assert [text.rpartition(" is ")[2] for text in before.differences] == ["missing"] * 3
    report = lifecycle.apply(s3_settings)
    assert (report.applicable, report.changed, report.differences) == (True, True, ())
    rules = stored(s3_client, s3_bucket)
    raw, processed = rules["kalshi-platform/some/prefix/raw"], rules["kalshi-platform/some/prefix/processed"]
    assert raw["Filter"] == {"Prefix": "some/prefix/raw/"}
    assert raw["Transitions"] == [{"Days": 30, "StorageClass": "GLACIER"}]
    assert processed["Filter"] == {"Prefix": "some/prefix/processed/"}
    assert processed["Transitions"] == [{"Days": 90, "StorageClass": "STANDARD_IA"}]
    uploads = rules["kalshi-platform/some/prefix/uploads"]
    assert uploads["Filter"] == {"Prefix": "some/prefix/"}
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert {rule["Status"] for rule in rules.values()} == {"Enabled"}
    moved = tuple(rule["Filter"]["Prefix"] for rule in rules.values() if rule.get("Transitions"))
    for path in ("open/raw/trades/date=2026-11-20/hour=04/x", "_index.json", "_index/raw/trades/2026-11.json"):
        assert not f"some/prefix/{path}".startswith(moved), "it is read, or replaced, at any time"
    assert lifecycle.apply(s3_settings).changed is False


def test_rules_of_others_stay(s3_settings: LakeSettings, s3_client: Any, s3_bucket: str) -> None:
    s3_client.put_bucket_lifecycle_configuration(Bucket=s3_bucket, LifecycleConfiguration={"Rules": [FOREIGN]})
    neighbour = replace(s3_settings, root=f"s3://{s3_bucket}/other")
    lifecycle.apply(neighbour)
    lifecycle.apply(s3_settings)
    rules = stored(s3_client, s3_bucket)
    assert rules["theirs"]["Expiration"]["Days"] == 9
    assert len(rules) == 7
    assert lifecycle.read_back(neighbour).differences == ()


def test_a_changed_rule_is_found_and_put_right(s3_settings: LakeSettings, s3_client: Any, s3_bucket: str) -> None:
    lifecycle.apply(s3_settings)
    rules = list(stored(s3_client, s3_bucket).values())
    for rule in rules:
        if rule["ID"].endswith("/raw"):
            rule["Transitions"][0]["Days"] = 300
        if rule["ID"].endswith("/processed"):
            rule["Status"] = "Disabled"
    s3_client.put_bucket_lifecycle_configuration(Bucket=s3_bucket, LifecycleConfiguration={"Rules": rules})
    found = lifecycle.read_back(s3_settings).differences
    assert len(found) == 2
    assert "Transitions is [{" in found[0]
    assert "300" in found[0]
    assert "Status is 'Disabled', not 'Enabled'" in found[1]
    assert lifecycle.apply(s3_settings).differences == ()


@pytest.mark.parametrize(
    ("prefix", "warned"), [("", True), ("some/", True), ("some/prefix/raw/", True), ("some/prefix2/", False)]
)
def test_a_foreign_rule_that_deletes_the_lake_is_named(
    s3_settings: LakeSettings, s3_client: Any, s3_bucket: str, prefix: str, warned: bool
) -> None:
    rule = FOREIGN | {"Filter": {"Prefix": prefix}}
    s3_client.put_bucket_lifecycle_configuration(Bucket=s3_bucket, LifecycleConfiguration={"Rules": [rule]})
    report = lifecycle.apply(s3_settings)
    assert any("'theirs' of another owner deletes" in text for text in report.warnings) is warned
    assert report.differences == ()


def test_a_folder_has_nothing_to_apply(tmp_path: Path) -> None:
    settings = LakeSettings(tmp_path.as_uri())
    for report in (lifecycle.apply(settings), lifecycle.read_back(settings)):
        assert report.applicable is False
        assert report.changed is False
        assert "there is no lifecycle to apply" in report.note


def test_a_missing_bucket_is_a_matter_of_configuration(s3_settings: LakeSettings) -> None:
    with pytest.raises(ConfigurationError, match="create the bucket"):
        lifecycle.apply(replace(s3_settings, root="s3://no-such-bucket"))
