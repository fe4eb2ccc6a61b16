"""`doctor` and `switch` on a configured platform."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from kalshi_platform.cli.main import app
from kalshi_platform.storage.services import ServiceSwitch, read_switch
from kalshi_platform_tests.integration.orchestration.conftest import Platform


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words), standalone_mode=True)
    return done.exit_code, done.output


@pytest.fixture(autouse=True)
def exchange_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_REST_URL", "http://127.0.0.1:9/trade-api/v2")


def test_a_service_is_switched_and_shown_by_its_short_name(platform: Platform) -> None:
    database = platform.world.gatherers["g2"].database
    code, said = run("switch", "g2", "off", "--reason", "maintenance")
    assert (code, said.split(";")[0]) == (0, "gatherer/g2 is switched off")
    assert read_switch(database, "gatherer/g2") == ServiceSwitch(enabled=False, reason="maintenance")
    code, said = run("switch")
    assert code == 0
    assert [line.split() for line in said.splitlines()] == [
        ["gatherer/g1", "on"], ["gatherer/g2", "off", "maintenance"], ["deduplicator", "on"]
    ]  # fmt: skip
    assert run("switch", "merge", "off")[0] == 0
    assert not read_switch(platform.world.production, "deduplicator").enabled
    assert run("switch", "g2", "on")[0] == 0
    assert read_switch(database, "gatherer/g2").enabled


def test_doctor_finds_a_platform_that_is_there_and_what_is_wrong_with_it(platform: Platform) -> None:
    _, said = run("doctor")
    assert "ok    production" in said
    assert "ok    g1 timeseries" in said
    assert "migrated" in said
    assert "an object was written, listed, read and removed" in said
    assert not [path for path in platform.lake.rglob("*") if path.is_file()], "nothing is left behind"

    with platform.world.gatherers["g1"].database.transaction() as transaction:
        transaction.execute("DELETE FROM schema_migrations WHERE name = (SELECT max(name) FROM schema_migrations)")
    run("switch", "merge", "off", "--reason", "upgrade")
    code, said = run("doctor")
    assert code == 1
    assert "FAIL  g1 timeseries" in said
    assert "→ kalshi-platform migrate" in said
    assert "WARN  deduplicator" in said
    assert "it is switched off (upgrade)" in said
    assert "→ kalshi-platform switch deduplicator on" in said
