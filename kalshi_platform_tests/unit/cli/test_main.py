"""The command itself: its version, and what it completes in a shell."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from kalshi_platform.cli.main import app


def test_version_is_printed_without_any_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_LOG_LEVEL", "nonsense")
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"kalshi-platform {version('kalshi-platform')}\n")


def completed(words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bash is given for the last of the words."""
    monkeypatch.setenv("KALSHI_GATHERERS", "east,west")
    environ = {
        "_KALSHI_PLATFORM_COMPLETE": "complete_bash",
        "COMP_WORDS": f"kalshi-platform {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    done = CliRunner().invoke(app, [], env=environ, prog_name="kalshi-platform")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("clo", ["close-hour"]),
        ("switch w", ["west"]),
        ("switch d", ["deduplicator"]),
        ("switch west o", ["on", "off"]),
        ("doctor --j", ["--json"]),
    ],
)
def test_the_shell_completes_commands_options_and_services(
    words: str, offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completed(words, monkeypatch) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_a_shell_names_the_command(shell: str) -> None:
    done = CliRunner().invoke(
        app, [], env={"_KALSHI_PLATFORM_COMPLETE": f"source_{shell}"}, prog_name="kalshi-platform"
    )
    assert done.exit_code == 0
    assert "kalshi-platform" in done.stdout
