"""Rules of Prometheus and the dashboard of Grafana: each expression parses, and names metrics that services serve."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from kalshi_platform.deduplicator.live.status import DeduplicatorStatus, LastPass, SourceStatus, TableCounts
from kalshi_platform.deduplicator.live.status import merge_metrics as metrics_of_merge
from kalshi_platform.gatherer.status.metrics import gatherer_metrics
from kalshi_platform.gatherer.status.status import PollerStatus
from kalshi_platform.local.processes.ports import free_port
from kalshi_platform.monitoring.endpoint import Endpoint, Health
from kalshi_platform.monitoring.settings import EndpointSettings
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.gatherer_status import well_status

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
GRAFANA = ROOT / "docker" / "grafana"
RULES = PROMETHEUS / "kalshi-platform.rules.yml"
DASHBOARD = GRAFANA / "dashboards" / "kalshi-platform.json"
RUNBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
_LABELS_OF_PROMETHEUS = {"job", "instance", "service", "gatherer"}
_OF_PROMETHEUS = {"up": _LABELS_OF_PROMETHEUS, "ALERTS": {"alertname", "alertstate"}}


@cache
def served() -> dict[str, frozenset[str]]:
    """Labels of every series by its name, as both services serve it to Prometheus."""
    now = FakeClock().now()
    merge = DeduplicatorStatus(
        state="running",
        tables={"trades": TableCounts(read=1, inserted=1)},
        last_pass=LastPass(at=now, seconds=0.1),
        gatherers={"g1": SourceStatus(lag_ms=5)},
    )
    gatherer = well_status(poller=PollerStatus(minute=now, took_s=1.0, stored=3, oldest_age_s=4.0, recovered=0))
    found: dict[str, frozenset[str]] = {}
    for metrics in (lambda: gatherer_metrics(gatherer), lambda: metrics_of_merge(merge)):
        endpoint = Endpoint(
            EndpointSettings(port=free_port()), "test", metrics, lambda: Health(service="s", state="", health="")
        )
        assert endpoint.ensure()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=30) as answer:
                text = answer.read().decode()
        finally:
            endpoint.close()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, frozenset()) | set(sample.labels)
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return loaded


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m").replace("$gatherer", "g1")


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of a parsed expression."""
    match node:
        case promql.VectorSelector():
            yield node
        case promql.MatrixSelector():
            yield node.vector_selector
        case promql.BinaryExpr():
            yield from selectors(node.lhs)
            yield from selectors(node.rhs)
        case promql.Call():
            for each in node.args:
                yield from selectors(each)
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from selectors(node.expr)
        case promql.NumberLiteral() | promql.StringLiteral():
            return
        case _:
            pytest.fail(f"a kind of expression that this test does not know: {type(node).__name__}")


def unknown_parts(expression: str) -> list[str]:
    """What an expression names and no service serves; ValueError where it does not parse."""
    found = []
    for selector in selectors(promql.parse(expression)):
        labels = _OF_PROMETHEUS.get(selector.name) or served().get(selector.name)
        if labels is None:
            found.append(f"no metric {selector.name}")
            continue
        matched = {matcher.name for matcher in selector.matchers.matchers}
        found += [f"{selector.name} has no label {name}" for name in matched - labels - _LABELS_OF_PROMETHEUS]
    return found


def test_every_expression_parses_and_names_metrics_and_labels_that_are_served() -> None:
    wrong = {f"{where}: {text}": found for where, text in expressions() if (found := unknown_parts(text))}
    assert not wrong
    assert len(list(expressions())) > 60


@pytest.mark.parametrize(
    "expression",
    ["kalshi_gatherer_record == 0", 'kalshi_gatherer_alarms{kind="gap"}', 'kalshi_gatherer_recording{kind="gap"} == 0'],
)
def test_a_wrong_name_is_found(expression: str) -> None:
    assert unknown_parts(expression)


def test_rules_are_explained_in_the_runbook_and_say_what_they_found() -> None:
    section = RUNBOOK.split("### 6.1 ")[1].split("\n## ")[0]
    named = re.findall(r"^\| `(Kalshi\w+)` \|", section, re.MULTILINE)
    assert named == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "error")
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]


def test_metrics_that_deserve_an_alert_have_a_rule() -> None:
    """One of each line with a condition in the runbook's tables of metrics."""
    tables = RUNBOOK.split("## 6. Metrics")[1].split("### 6.1 ")[0]
    rows = [row.strip("|").split("|") for row in tables.splitlines() if row.startswith("| `kalshi")]
    deserve = [set(re.findall(r"`(kalshi_\w+)`", row[0])) for row in rows if row[2].strip()]
    assert len(deserve) > 20
    ruled = {selector.name for rule in rules() for selector in selectors(promql.parse(rule["expr"]))}
    ruled = {re.sub(r"_(total|bucket)$", "", name) for name in ruled}
    # The channels differ in how quiet they are: the whole connection is watched instead.
    assert [names for names in deserve if not names & ruled] == [{"kalshi_gatherer_last_message_age_seconds"}]


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "kalshi-platform.rules.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "kalshi-platform.rules.test.yml"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_accepts_the_rules(arguments: list[str]) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool (Debian: prometheus) is not installed: the expressions were parsed, but not by it")
    result = subprocess.run(
        [program, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_prometheus_scrapes_the_services_of_compose() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    targets = {
        (each["targets"][0], each["labels"]["service"], each["labels"].get("gatherer"))
        for job in config["scrape_configs"]
        for each in job["static_configs"]
    }
    expected: set[tuple[str, str, str | None]] = {("code-location:9400", "deduplicator", None)}
    expected |= {(f"code-location:{9400 + n}", f"gatherer/g{n}", f"g{n}") for n in (1, 2, 3)}
    assert targets == expected
    environment = COMPOSE["services"]["code-location"]["environment"]
    assert environment["KALSHI_METRICS_PORT"] == "${KALSHI_METRICS_PORT:-9400}"
    assert environment["KALSHI_METRICS_NAMES"] == "${KALSHI_METRICS_NAMES:-code-location}"


def test_compose_starts_prometheus_and_grafana_on_demand_with_what_stands_here() -> None:
    for name, folder in (("prometheus", PROMETHEUS), ("grafana", GRAFANA)):
        service = COMPOSE["services"][name]
        assert service["profiles"] == ["monitoring"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"])
        mounted = [volume.split(":")[0] for volume in service["volumes"] if volume.startswith("./")]
        assert mounted
        for path in mounted:
            assert (ROOT / "docker" / path).exists()
            assert folder in ((ROOT / "docker" / path).resolve(), *(ROOT / "docker" / path).resolve().parents)


def test_dashboard_uses_the_data_source_and_the_folder_that_are_provisioned() -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/kalshi-platform.yml").read_text(encoding="utf-8"))[
        "providers"
    ]
    uids = set(re.findall(r'"uid": "([^"]+)"', DASHBOARD.read_text(encoding="utf-8"))) - {"kalshi-platform"}
    assert uids == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    volumes = COMPOSE["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in volumes
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in volumes


def test_panels_have_a_place_of_their_own_and_say_what_they_show() -> None:
    taken: dict[tuple[int, int], str] = {}
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    for panel in panels():
        assert panel["description"]
        assert panel["type"] in ("stat", "timeseries")
        assert [target["refId"] for target in panel["targets"]] == [chr(65 + n) for n in range(len(panel["targets"]))]


def test_variables_of_the_dashboard_are_defined() -> None:
    variables = {each["name"] for each in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$(\w+)", " ".join(target["expr"] for panel in panels() for target in panel["targets"])))
    assert used - {"__rate_interval"} == variables
    [gatherer] = dashboard()["templating"]["list"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", gatherer["definition"]).groups()  # type: ignore[union-attr]
    assert metric in served()
    assert label in _LABELS_OF_PROMETHEUS
