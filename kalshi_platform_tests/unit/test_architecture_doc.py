"""Every file, folder and function that the documents name exists. The source is read, nothing is imported."""

from __future__ import annotations

import ast
import re
import tomllib
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DOCUMENTS = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
NAMED = re.compile(r"`((?:kalshi_platform|kalshi_platform_tests|sql|docker|docs|conformance)/[^`\s*<{…]*)`")


# Files that an operator makes.
MADE_LATER = frozenset({"docker/.env"})


@cache
def definitions_of(path: Path) -> tuple[str, ...]:
    """Functions, classes, methods and constants of a module, as `name` or `Class.name`."""
    found: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        if isinstance(node, ast.ClassDef):
            found += [f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)]
        if isinstance(node, ast.Assign):
            found += [each.id for each in node.targets if isinstance(each, ast.Name)]
    return tuple(found)


def problem_with(named: str) -> str | None:
    """What is wrong with `path/file.py::function`, `path/file` or `path/folder/`; None when it is there."""
    file, _, name = named.partition("::")
    path = ROOT / file
    if not path.exists():
        files = {str(each.relative_to(ROOT)) for each in (ROOT / "kalshi_platform").rglob("*.py")}
        near = [each for each in sorted(files) if Path(each).name == path.name] or get_close_matches(file, files)
        return f"{file} does not exist; near to it: {', '.join(near) or 'nothing'}"
    if name and name not in definitions_of(path):
        near = get_close_matches(name, definitions_of(path), cutoff=0.4)
        return f"{file} has no {name}; near to it: {', '.join(near) or 'nothing'}"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_document_names_only_what_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = [each for each in dict.fromkeys(NAMED.findall(text)) if each not in MADE_LATER]
    problems = [problem for each in named if (problem := problem_with(each))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("walk", "first", "last", "fewest"),
    [
        ("4. The walk of one delta", "exchange/websocket.py", "lake/store/folder.py", 40),
        ("5. The walk of one market", "gatherer/routing.py", "deduplicator/catalog/history.py", 15),
        ("6. The walk of one asset", "definitions.py", "orchestration/assets/lake_raw.py", 9),
    ],
)
def test_walk_is_numbered_and_leads_from_end_to_end(walk: str, first: str, last: str, fewest: int) -> None:
    section = ARCHITECTURE.read_text(encoding="utf-8").split(f"## {walk}")[1].split("\n## ")[0]
    steps = re.findall(r"^\| (\d+) \| `kalshi_platform/([^`:]+)", section, re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) >= fewest
    assert (steps[0][1], steps[-1][1]) == (first, last)


def test_tree_of_the_rooms_names_every_room() -> None:
    tree = ARCHITECTURE.read_text(encoding="utf-8").split("## 2. Rooms")[1].split("## 3.")[0]
    rooms = [each.name for each in (ROOT / "kalshi_platform").iterdir() if (each / "__init__.py").exists()]
    for room in ("gatherer", "deduplicator", "exchange", "lake", "lab", "local", "orchestration"):
        inner = (ROOT / "kalshi_platform" / room).iterdir()
        rooms += [each.name for each in inner if each.is_dir() and any(each.glob("*.py"))]
    missing = [room for room in rooms if f"{room}/" not in tree]
    assert not missing, f"section 2 of docs/architecture.md does not name {', '.join(missing)}"


def test_diagram_of_the_layers_is_the_import_contract() -> None:
    diagram = ARCHITECTURE.read_text(encoding="utf-8").split("flowchart TD")[1].split("```")[0]
    drawn = dict(re.findall(r'\b([A-Z])\["?([^\]"]+)"?\]', diagram))
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    rooms = next(each for each in contracts if each.get("containers") == ["kalshi_platform"])
    assert [set(drawn[key].split(" · ")) for key in sorted(drawn)] == [
        set(each.split(" | ")) for each in rooms["layers"]
    ]


def test_glossary_says_where_things_are() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    places = [re.findall(r"`([^`]+)`", row.split(" | ")[-1]) for row in re.findall(r"^\| .+ \|$", text, re.MULTILINE)]
    sources = [*(ROOT / "sql").rglob("*.sql"), *(ROOT / "kalshi_platform").rglob("*.py")]
    words = set(re.findall(r"\w+", "\n".join(path.read_text(encoding="utf-8") for path in sources)))
    for place in (each for row in places for each in row):
        if "/" in place:
            known = (ROOT / "kalshi_platform" / place).exists() or (ROOT / place).exists() or "<" in place
        else:
            known = all(word in words for word in re.findall(r"[A-Za-z_]+", place.split("*")[-1]))
        assert known, f"docs/glossary.md: {place}"
