"""Every command that the README shows exists, with the options it is shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from kalshi_platform.cli.main import app
from kalshi_platform.config.sections import SECTIONS, documented

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shown_commands() -> list[str]:
    """`kalshi-platform …` of the console blocks and of the command table."""
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    lines = re.findall(r"(?:^\$ |\s)(?:\.venv/bin/)?kalshi-platform ([^#\n]+)", blocks, re.MULTILINE)
    table = re.findall(r"^\| `kalshi-platform ([^`]+)`", README, re.MULTILINE)
    return [line.strip() for line in lines + table]


@pytest.mark.parametrize("line", shown_commands())
def test_a_shown_command_and_its_options_exist(line: str) -> None:
    words = shlex.split(line.replace("[", " ").replace("]", " "))
    found = get_command(app)
    while words and hasattr(found, "commands"):
        name = words.pop(0)
        assert name in found.commands, f"kalshi-platform {line}"
        found = found.commands[name]
    options = {option for parameter in found.params for option in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word in options, f"{word} of kalshi-platform {line}"


def test_commands_were_found() -> None:
    assert len(shown_commands()) >= 12


@pytest.mark.parametrize("target", re.findall(r"^\$ make (\w+)", README, re.MULTILINE))
def test_a_shown_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_variable_that_is_shown_is_read() -> None:
    known = {each.setting.name.format(GATHERER="G1") for section in SECTIONS for each in documented(section)}
    assert set(re.findall(r"`(KALSHI_[A-Z0-9_]+)`", README)) <= known


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target
