"""Progress of long work: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from kalshi_platform.cli.console import print_line, print_table
from kalshi_platform.cli.progress import LINE_EVERY_S, ProgressLines, progress_shown
from kalshi_platform.monitoring.progress import Progress, listening, report_each, report_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_work_that_takes_long_says_so_every_fifteen_seconds_and_short_work_never() -> None:
    now = 0.0
    lines: list[str] = []
    shown = ProgressLines(lines.append, lambda: now)
    for second in range(40):
        now = float(second)
        shown(Progress("buckets merged", second, 40))
        if second < LINE_EVERY_S:
            shown(Progress("short", second, 15))
    assert lines == ["buckets merged: 15 of 40", "buckets merged: 30 of 40"]


def test_each_item_is_reported_with_the_number_of_all() -> None:
    seen: list[Progress] = []
    with listening(seen.append):
        assert list(report_each("hours", ["a", "b"])) == ["a", "b"]
        report_progress("rows", 7)
    report_progress("rows", 8)
    assert seen == [
        Progress("hours", 0, 2), Progress("hours", 1, 2), Progress("hours", 2, 2), Progress("rows", 7, None)
    ]  # fmt: skip


def test_on_a_terminal_bars_are_drawn_and_what_is_printed_and_logged_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, errors = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler(errors)
    logging.getLogger().addHandler(handler)
    try:
        with progress_shown("closing an hour"):
            for _ in report_each("buckets \x1b[2J[red]", [1, 2]):
                print_line("a line")
                logging.getLogger("kalshi_platform.test").error("a record")
        assert handler.stream is errors, "given back"
    finally:
        logging.getLogger().removeHandler(handler)
    drawn = screen.getvalue()
    assert "closing an hour" in drawn
    assert r"buckets \x1b[2J[red]" in drawn
    assert "2/2" in drawn
    assert drawn.count("a line") == 2
    assert drawn.count("a record") == 2, "above the bars, not through them"


def test_in_a_pipe_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown("closing an hour"):
        report_progress("buckets", 1, 2)
    assert not print_table(["a"], [["b"]])
    said = capsys.readouterr()
    assert said.out + said.err == ""


def test_a_table_on_a_terminal_holds_cells_that_control_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert print_table(["mark", "text"], [["ok", "fine \x1b[2J[red]"]], colours={"ok": "green"})
    assert r"fine \x1b[2J[red]" in screen.getvalue()
