"""The files of deploy/kubernetes: they fit the shipped instance file, each other, and the chart's own schema."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kalshi_platform.reference_docs import SECTIONS, documented
from kalshi_platform_tests.integration.deploy.chart import KUBERNETES, ROOT, instance, location, values

LOCATIONS = ("platform", "g1", "g2", "g3")
CHART = os.environ.get("DAGSTER_CHART", "")


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    return values()


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def test_the_instance_differs_from_the_shipped_one_only_where_kubernetes_does(given: dict[str, Any]) -> None:
    shipped = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    ours = instance(given)
    assert set(ours) - set(shipped) == {"run_launcher", "compute_logs", "local_artifact_storage"}
    assert set(shipped) - set(ours) == {"storage"}
    shipped["concurrency"]["runs"]["tag_concurrency_limits"][1]["limit"] = 8
    assert {key: ours[key] for key in shipped if key != "storage"} == {
        key: value for key, value in shipped.items() if key != "storage"
    }


@pytest.mark.parametrize("name", LOCATIONS)
def test_a_location_has_its_role_the_settings_it_reads_and_no_secret_in_plain_text(
    given: dict[str, Any], name: str
) -> None:
    of = location(given, name)
    env = {each["name"]: each["value"] for each in of["env"]}
    assert env["KALSHI_ROLE"] == ("platform" if name == "platform" else f"gatherer:{name}")
    known = {each.setting.name for section in SECTIONS for each in documented(section)}
    assert set(env) <= known, set(env) - known
    assert not [key for key in env if re.search("URL|PASSWORD|KEY_ID|TOKEN", key)]
    assert of["envSecrets"][0]["name"] == f"kalshi-{name}"


@pytest.mark.parametrize("name", LOCATIONS)
def test_a_location_runs_without_rights_on_a_read_only_system(given: dict[str, Any], name: str) -> None:
    of = location(given, name)
    image_user = re.findall(r"^ARG UID=(\d+)$", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    assert of["podSecurityContext"]["runAsNonRoot"] is True
    assert [str(of["podSecurityContext"]["runAsUser"])] == image_user
    for context in (of["securityContext"], given["runLauncher"]["config"]["k8sRunLauncher"]["securityContext"]):
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    mounted = {each["name"]: each["mountPath"] for each in of["volumeMounts"]}
    assert set(mounted) == {each["name"] for each in of["volumes"]}
    paths = {each["name"]: each["value"] for each in of["env"]}
    assert any(paths["KALSHI_STATE_DIR"].startswith(path) for path in mounted.values())
    if name != "platform":
        assert paths["KALSHI_PRIVATE_KEY_PATH"].startswith(mounted["key"] + "/")


def test_gatherers_keep_their_journals_in_volumes_that_exist(given: dict[str, Any]) -> None:
    claims = {each["metadata"]["name"]: each["spec"]["accessModes"] for each in manifests("volumes.yaml")}
    used = [
        volume["persistentVolumeClaim"]["claimName"]
        for name in LOCATIONS
        for volume in location(given, name)["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert sorted(used) == sorted(claims) == ["kalshi-g1-state", "kalshi-g2-state", "kalshi-g3-state"]
    assert set(map(tuple, claims.values())) == {("ReadWriteMany",)}  # by the location, and by its run


def test_tables_are_made_by_the_same_image_as_their_owner(given: dict[str, Any]) -> None:
    (job,) = manifests("migrate.yaml")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    image = location(given, "platform")["image"]
    assert container["image"] == f"{image['repository']}:{image['tag']}"
    assert container["args"] == ["kalshi-platform", "migrate"]
    assert [each["secretRef"]["name"] for each in container["envFrom"]] == ["kalshi-owners"]


@pytest.mark.skipif(not CHART, reason="DAGSTER_CHART names no copy of Dagster's chart: its schema was not asked")
@pytest.mark.parametrize("chart", ["", "charts/dagster-user-deployments"])
def test_the_charts_schema_accepts_the_values(given: dict[str, Any], chart: str) -> None:
    folder = Path(CHART) / chart
    schema = json.loads(re.sub(r'"\$ref"(?=: "https?:)', '"$comment"', (folder / "values.schema.json").read_text()))
    ours = given["dagster-user-deployments"] if chart else given
    whole = merged(yaml.safe_load((folder / "values.yaml").read_text()), {**ours, "global": given["global"]})
    errors = jsonschema.Draft7Validator(schema).iter_errors(whole)
    assert [f"{list(each.absolute_path)}: {each.message}" for each in errors] == []


def merged(below: Any, above: Any) -> Any:
    """Values over values, as Helm lays them."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}
