"""`doctor`: what it says, and that it works when nothing is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kalshi_platform.cli.doctor import run_checks
from kalshi_platform.cli.doctor.findings import Finding, finding_of_problem, lines_of
from kalshi_platform.cli.doctor.lake import check_frames
from kalshi_platform.cli.main import app
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.journals import OPENED, SESSION, STREAM_OPENED, a_journal, batch_of

CLOSED = "http://127.0.0.1:9/trade-api/v2"
"""An address at which nothing answers, and that is refused at once."""


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without `.env`, and no settings but the address of an exchange that is away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KALSHI_REST_URL", CLOSED)
    return tmp_path


def test_findings_are_lines_with_the_remedy_below() -> None:
    findings = [
        Finding("lake", "ok", "fine"),
        Finding("production", "fail", "it is away", "start it"),
        Finding("UI", "warn", "taken", "--port N"),
    ]
    assert lines_of(findings) == [
        "ok    lake        fine",
        "FAIL  production  it is away",
        "                  → start it",
        "WARN  UI          taken",
        "                  → --port N",
        "1 ok, 1 to look at, 1 failed",
    ]


@pytest.mark.parametrize(
    ("problem", "text", "remedy"),
    [
        ("X is missing: set it to a URL", "X is missing", "set it to a URL"),
        ("production lacks a.sql: run: kalshi-platform migrate", "production lacks a.sql", "kalshi-platform migrate"),
        ("it is odd: nobody knows why", "it is odd: nobody knows why", ""),
    ],
)
def test_a_problem_of_the_settings_is_split_from_its_remedy(problem: str, text: str, remedy: str) -> None:
    assert finding_of_problem("settings", problem) == Finding("settings", "fail", text, remedy)


def test_hours_of_frames_that_do_not_reach_the_lake_are_named(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_GATHERERS", "g1,g2")
    monkeypatch.setenv("KALSHI_STATE_DIR", str(nothing / "state"))
    monkeypatch.setenv("KALSHI_LAKE_ROOT", (nothing / "lake").as_uri())
    for name in ("G1", "G2"):
        monkeypatch.setenv(f"KALSHI_{name}_TIMESERIES_DATABASE_URL", "postgresql://nowhere/none")
        monkeypatch.setenv(f"KALSHI_{name}_CATALOG_DATABASE_URL", "postgresql://nowhere/none")
    assert list(check_frames()) == [], "there is no journal on this host"
    journal = a_journal(nothing / "state" / "g1" / "journal", FakeClock(datetime(2026, 1, 5, 7, tzinfo=UTC)))
    journal.append(SESSION, batch_of([b"{}"], received_at_ns=1_767_596_400_000_000_000, marks=(OPENED, STREAM_OPENED)))
    journal.close()
    assert list(check_frames()) == [
        Finding(
            "frames g1",
            "warn",
            "1 hours are not in the lake, 2026-01-05T07 the first: they stay on the disk",
            "kalshi-platform journal archive g1",
        )
    ]
    root = (nothing / "lake").as_uri()
    done = CliRunner().invoke(app, ["journal", "archive", "g1"])
    assert (done.exit_code, "2026-01-05T07: 1 segments added" in done.output) == (0, True), done.output
    assert list(check_frames()) == [
        Finding("frames g1", "ok", f"they reach {root}: none waits for longer than two hours")
    ]
    done = CliRunner().invoke(app, ["journal", "archive", "g1", "2026-01-05T07", "--verify"])
    assert (done.exit_code, "1 segments with 1 frames" in done.output) == (0, True), done.output
    assert "2026-01-05" in (nothing / "lake" / "_index" / "raw" / "frames" / "g1" / "2026-01.json").read_text()
    monkeypatch.setenv("KALSHI_ARCHIVE_FRAMES", "no")
    (finding,) = check_frames()
    assert finding.text == "not archived: gone 24 hours after they are in the database"


def test_a_check_that_breaks_is_a_finding_and_keeps_no_other_from_its_work() -> None:
    def breaks() -> Iterator[Finding]:
        yield Finding("first", "ok", "found before it broke")
        raise RuntimeError("boom")

    def works() -> Iterator[Finding]:
        yield Finding("second", "ok", "found")

    found = run_checks([("first", breaks), ("second", works)])
    assert [(each.subject, each.mark) for each in found] == [("first", "ok"), ("first", "fail"), ("second", "ok")]
    assert "RuntimeError: boom" in found[1].text


def test_with_nothing_configured_it_names_what_is_missing_and_looks_at_the_rest(nothing: Path) -> None:
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1, done.output
    assert "FAIL  settings" in done.output
    assert "KALSHI_PRODUCTION_DATABASE_URL is missing" in done.output
    assert "→ set it to postgresql://" in done.output
    assert f"FAIL  exchange        {CLOSED}" in done.output
    assert "ok    version         kalshi-platform 0." in done.output
    assert "disk state" in done.output
    assert "WARN  alerts          no webhook is set" in done.output


def test_json_holds_every_finding_also_where_the_settings_of_logs_are_wrong(
    nothing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALSHI_LOG_LEVEL", "loud")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    content = json.loads(done.stdout)
    assert content["ok"] is False
    failed = [each["text"] for each in content["findings"] if each["mark"] == "fail"]
    assert any("KALSHI_LOG_LEVEL is 'loud'" in text for text in failed)
    assert CliRunner().invoke(app, ["switch"]).exit_code != 0, "other commands refuse"
