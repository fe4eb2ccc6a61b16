"""Every command that the README and the documents show exists, with the options it is shown with.

So do make targets, settings and linked files.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

from kalshi_platform.cli.main import app
from kalshi_platform.reference_docs import SECTIONS, documented

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
    if path.name != "CHANGELOG.md"
}
# Where variables are read that are no settings of the platform.
ELSEWHERE = ("kalshi_platform_tests", "docker", "conformance", "browser")


def shown_commands() -> list[str]:
    """`kalshi-platform …` of console blocks, of tables of commands, and of sentences that show options or arguments."""
    found: dict[str, None] = {}
    for text in DOCUMENTS.values():
        blocks = "\n".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
        found |= dict.fromkeys(
            re.findall(r"(?:^\$ |\s)(?:\.venv/bin/)?kalshi-platform ([^#\n]+)", blocks, re.MULTILINE)
        )
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        found |= dict.fromkeys(re.findall(r"`(?:\w+=\S+ )?kalshi-platform ([^`…]+)`", prose))
    return [line.strip() for line in found]


@pytest.mark.parametrize("line", shown_commands())
def test_shown_command_and_its_options_exist(line: str) -> None:
    words = shlex.split(line.replace("[", " ").replace("]", " "))
    found = get_command(app)
    while words and hasattr(found, "commands") and not words[0].startswith("--"):
        names = words.pop(0).replace("\\", "").split("|")
        assert set(names) <= set(found.commands), f"kalshi-platform {line}"
        found = found.commands[names[0]]
    options = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word in options, f"{word} of kalshi-platform {line}"


def test_commands_are_found_in_readme_and_documents() -> None:
    assert len(shown_commands()) >= 25


def test_every_command_is_in_the_table_of_commands() -> None:
    table = re.findall(r"^\| `kalshi-platform ([^`]+)`", DOCUMENTS["docs/commands.md"], re.MULTILINE)
    # `query trades\|quotes` shows two commands.
    lines = [line.replace("\\", "").split() for line in table]
    shown = {(words[0], second) for words in lines for second in " ".join(words[1:2]).split("|")}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        names: list[tuple[str, ...]] = [(name, inner) for inner in getattr(command, "commands", ())] or [(name,)]
        for each in names:
            assert any(line[: len(each)] == each for line in shown), f"docs/commands.md lacks {' '.join(each)}"


_TARGET = re.compile(r"(?:^\$ |`)make ([a-z-]+)", re.MULTILINE)


@pytest.mark.parametrize("target", sorted({each for text in DOCUMENTS.values() for each in _TARGET.findall(text)}))
def test_shown_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@cache
def known_variables() -> frozenset[str]:
    """Settings of the platform; variables of the test suite, of containers and of the conformance suite."""
    files = [path for each in ELSEWHERE for path in (ROOT / each).rglob("*") if path.suffix in {".py", ".yaml"}]
    others = re.findall(
        r"\b(?:KALSHI|TEST)_[A-Z0-9_]+\b", "\n".join(path.read_text(encoding="utf-8") for path in files)
    )
    settings = {each.setting.name for section in SECTIONS for each in documented(section)}
    return frozenset(others) | {name.format(GATHERER="<NAME>") for name in settings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_variable_that_is_named_is_read(name: str) -> None:
    named = set(re.findall(r"`((?:KALSHI|TEST)_[A-Z0-9_<>]+)[`=]", DOCUMENTS[name]))
    assert named <= known_variables(), f"{name}: {', '.join(sorted(named - known_variables()))}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_linked_files_and_headings_exist(name: str) -> None:
    document = ROOT / name
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]+)?\)", DOCUMENTS[name]):
        file = (document.parent / target).resolve() if target else document
        assert file.exists(), f"{name}: {target}"
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
            assert anchor[1:] in anchors, f"{name}: {target}{anchor}"
