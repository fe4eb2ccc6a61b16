"""Every alarm, metric, check, reason and log event that the code can show has its entry in docs/operations.md.

The names are read from the source, so that none is forgotten; of the code only the list of alerts is imported. An alarm
whose kind is no constant fails here: it could not be looked up.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from kalshi_platform.monitoring.alerts.alert import KINDS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kalshi_platform"
RUNBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
ENTRIES = frozenset(re.findall(r"`([^`\n]+)`", RUNBOOK))
EVENT_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
METRIC_PREFIX = "kalshi_gatherer_"
METRIC = re.compile(r"kalshi_(gatherer|deduplicator)_[a-z_]*")
# Where a kind is passed on, the callers are looked at.
PASSED_ON = frozenset({"kind", "alarm"})


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """The product's modules, without the test rig."""
    return tuple(
        (str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "lab"
    )


@cache
def nodes() -> tuple[tuple[str, ast.AST], ...]:
    """All nodes that the enumerations look at, with their module."""
    kinds = (ast.Call, ast.Tuple, ast.Constant, ast.JoinedStr)
    return tuple((path, node) for path, tree in modules() for node in ast.walk(tree) if isinstance(node, kinds))


@cache
def constants() -> dict[str, frozenset[str]]:
    """Texts of module-level constants by name; a name that several modules use has several."""
    found: dict[str, set[str]] = {}
    for _, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                for target, value in _pairs(node.targets[0], node.value):
                    if (
                        isinstance(target, ast.Name)
                        and isinstance(value, ast.Constant)
                        and isinstance(value.value, str)
                    ):
                        found.setdefault(target.id, set()).add(value.value)
    return {name: frozenset(texts) for name, texts in found.items()}


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        yield from zip(target.elts, value.elts, strict=False)
    else:
        yield target, value


def calls(names: str) -> Iterator[tuple[str, ast.Call]]:
    """Calls of functions and methods whose name is one of `names`, a pattern."""
    for path, node in nodes():
        if isinstance(node, ast.Call) and re.fullmatch(names, _called(node)):
            yield f"{path}:{node.lineno}", node


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def texts_of(node: ast.expr, own: dict[str, str]) -> frozenset[str]:
    """What an argument can be: a text, a constant of its module, or a constant of another one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return frozenset({node.value})
    if isinstance(node, ast.IfExp):
        return texts_of(node.body, own) | texts_of(node.orelse, own)
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    if name in own:
        return frozenset({own[name]})
    return constants().get(name, frozenset())


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else " "


@cache
def own_constants(path: str) -> dict[str, str]:
    tree = dict(modules())[path]
    return {
        target.id: value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target, value in _pairs(node.targets[0], node.value)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str)
    }


def constants_named(*names: str) -> frozenset[str]:
    """Texts of these constants. Raises KeyError for one that is gone, so that this list stays true."""
    return frozenset().union(*(constants()[name] for name in names))


def alarm_kinds() -> frozenset[str]:
    """Kinds of a gatherer's alarms."""
    found: set[str] = set()
    for place, call in calls(r"\w*[aA]larm"):
        if call.args:
            found |= texts_of(call.args[0], own_constants(place.rpartition(":")[0]))
    # Returned by what compares the database with the last commit.
    return frozenset(found) | constants_named("WENT_BACK", "LOST")


def close_kinds() -> frozenset[str]:
    """Kinds of the alarms of merge and close: the first of (kind, subject, detail)."""
    found: set[str] = set()
    for path, tree in modules():
        if "/deduplicator/" in path:
            for node in ast.walk(tree):
                if isinstance(node, ast.Tuple) and len(node.elts) == 3:  # kind, subject, detail
                    first, _, detail = node.elts
                    if isinstance(first, ast.Constant | ast.IfExp) and not isinstance(detail, ast.Constant):
                        found |= texts_of(first, {})
    return frozenset(each for each in found if EVENT_NAME.fullmatch(each)) | constants_named(
        "GATHERER_RESTARTED", "ROWS_REFUSED"
    )


def dead_letter_reasons() -> frozenset[str]:
    """Reasons of gatherers and of production."""
    found: set[str] = set()
    for place, call in calls("UnparsableMessage"):
        found |= texts_of(call.args[0], own_constants(place.rpartition(":")[0]))
    for place, call in calls("add"):
        if "/exchange/" in place and len(call.args) > 3:  # payload, time, reason, detail
            found |= texts_of(call.args[2], own_constants(place.rpartition(":")[0]))
    for place, call in calls("_add_letter"):  # payload, time, reason, detail
        found |= texts_of(call.args[2], own_constants(place.rpartition(":")[0]))
    return frozenset(found) | constants_named(
        "OUT_OF_BOUNDS", "UNWRITABLE", "REFUSED", "NO_PARTITION", "MISDATED", "NAME_TOO_LONG"
    )


def metric_names() -> frozenset[str]:
    """Names of metrics: a text, or the prefix of its module and a text."""
    found: set[str] = set()
    for path, tree in modules():
        prefixes = [text for text in own_constants(path).values() if METRIC.fullmatch(text)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and METRIC.fullmatch(node.value):
                found.add(node.value)
            if isinstance(node, ast.JoinedStr) and len(node.values) == 2:
                first, last = node.values
                if isinstance(first, ast.FormattedValue) and METRIC.fullmatch(f"{METRIC_PREFIX}{_text(last)}"):
                    found |= {f"{each}{_text(last)}" for each in prefixes}
    return frozenset(each for each in found if not each.endswith("_"))


def check_names() -> frozenset[str]:
    found: set[str] = set()
    for place, call in calls("AssetCheckSpec|asset_check"):
        named = [keyword.value for keyword in call.keywords if keyword.arg == "name"] or call.args[:1]
        texts = texts_of(named[0], own_constants(place.rpartition(":")[0])) if named else frozenset()
        assert texts, f"{place}: the check's name is no constant"
        found |= texts
    return frozenset(found)


def log_events() -> frozenset[str]:
    """Events that are logged as a warning or worse."""
    found: set[str] = set()
    for _, call in calls("warning|error|exception|critical|log"):
        first = call.args[0] if call.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and EVENT_NAME.fullmatch(first.value):
            found.add(first.value)
    return frozenset(found)


def database_failures() -> frozenset[str]:
    """The words for why a database takes nothing: values of the table of SQLSTATEs."""
    tables = [
        node.value
        for path, tree in modules()
        if "/storage/" in path
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
        and any(isinstance(key, ast.Constant) and key.value == "57P01" for key in node.value.keys)
    ]  # fmt: skip
    assert tables, "the table of SQLSTATEs is not where it was"
    found: set[str] = set()
    for table in tables:
        for value in table.values:
            found |= texts_of(value, {})
    return frozenset(found)


@pytest.mark.parametrize(
    ("what", "enumerate_names", "fewest"),
    [
        ("alarm", alarm_kinds, 15),
        ("alarm of merge and close", close_kinds, 6),
        ("dead letter reason", dead_letter_reasons, 18),
        ("metric", metric_names, 40),
        ("asset check", check_names, 9),
        ("alert", lambda: frozenset(KINDS), 28),
        ("log event", log_events, 60),
        ("database failure", database_failures, 10),
    ],
)
def test_runbook_has_an_entry_for_each_name_of_the_code(
    what: str, enumerate_names: Callable[[], frozenset[str]], fewest: int
) -> None:
    names = enumerate_names()
    assert len(names) >= fewest, f"only {len(names)} found: the enumeration no longer fits the code: {sorted(names)}"
    missing = sorted(names - ENTRIES)
    assert not missing, f"docs/operations.md has no entry for {what}: {', '.join(missing)}"


def test_every_alarm_call_has_a_kind_that_can_be_looked_up() -> None:
    for place, call in calls(r"Alarm|_?(on|count|add)_alarm"):
        names = {each.id for each in ast.walk(call) if isinstance(each, ast.Name)}
        names |= {each.attr for each in ast.walk(call) if isinstance(each, ast.Attribute)}
        assert names & PASSED_ON or texts_of(call.args[0], own_constants(place.rpartition(":")[0])), (
            f"{place}: {ast.unparse(call)}"
        )


def test_order_of_the_sql_folders_is_the_order_of_migrate() -> None:
    section = RUNBOOK.split("### Migrating")[1].split("\n### ")[0]
    rows = re.findall(r"^\| (timeseries|catalog|production)\b[^|]*\| (.+) \|$", section, re.MULTILINE)
    written = {kind: tuple(re.findall(r"`sql/([a-z]+)`", folders)) for kind, folders in rows}
    tree = dict(modules())["kalshi_platform/storage/migrate.py"]
    applied = [node.value for node in tree.body if isinstance(node, ast.AnnAssign) and _is_named(node, "FOLDERS")]
    assert [written] == [ast.literal_eval(each) for each in applied if each is not None]


def _is_named(node: ast.AnnAssign, name: str) -> bool:
    return isinstance(node.target, ast.Name) and node.target.id == name


def test_each_log_event_has_one_entry() -> None:
    section = RUNBOOK.split("## 9. Log events")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    events = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert len(events) > 60
    assert not [name for name in dict.fromkeys(events) if events.count(name) > 1]


def test_alarm_kinds_of_the_runbook_exist_in_the_code() -> None:
    section = RUNBOOK.split("### 3.3 Alarms")[1].split("### 3.4")[0]
    written = set(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE))
    assert written == alarm_kinds()


def test_alert_has_a_severity_and_a_section_for_every_alarm_that_the_code_can_raise() -> None:
    own = {kind for kind, about in KINDS.items() if about.section == "7.6"}
    assert set(KINDS) == alarm_kinds() | close_kinds() | own
    for kind, about in KINDS.items():
        section = re.split(rf"^### {re.escape(about.section)} ", RUNBOOK, flags=re.MULTILINE)[1].split("\n### ")[0]
        assert f"| `{kind}` |" in section, f"{kind} is not explained in section {about.section}"
