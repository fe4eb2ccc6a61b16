"""What `up` refuses before anything starts, and which settings a simulated run leaves aside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dotenv import dotenv_values

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.settings import MarketFilter
from kalshi_platform.lake.iceberg.settings import IcebergSettings
from kalshi_platform.local.databases import DatabaseStack
from kalshi_platform.local.simulated_settings import LEFT_ASIDE, names_left_aside
from kalshi_platform.local.simulator_process import SimulationOptions, SimulatorAddresses
from kalshi_platform.local.stack import Stack, StackOptions
from kalshi_platform.setting import declared_settings


@pytest.mark.parametrize("name", ["a[b]", "a*", "a?b"])
def test_a_folder_that_dagster_takes_for_a_pattern_is_refused_where_dagster_runs(tmp_path: Path, name: str) -> None:
    options = StackOptions(tmp_path / name / "data", SimulationOptions(), env_file=tmp_path / ".env")
    with pytest.raises(ConfigurationError, match="takes for a pattern: choose another"):
        Stack(options, print).check()
    Stack(replace(options, headless=True), print).check()
    Stack(replace(options, data_dir=tmp_path / "a ü $x 'q' #" / "data"), print).check()


REAL = {
    "KALSHI_SERIES": "KX*",
    "KALSHI_G2_MARKET_SHARD": "1/2",
    "KALSHI_ALERT_WEBHOOK_URL": "https://hooks.example.com/services/T/B/x",
    "KALSHI_LAKE_ROOT": "s3://recorded/lake",
    "KALSHI_ICEBERG_CATALOG_URI": "https://catalog.example.com",
    "KALSHI_API_KEY_ID": "real",
    "KALSHI_ROLE": "gatherer:g1",
}


def test_a_simulated_run_leaves_aside_what_is_of_the_real_exchange_and_keeps_the_rest() -> None:
    assert names_left_aside({**REAL, "KALSHI_GATHERERS": "g1,g2", "KALSHI_TICKERS": " ", "SERIES": "x"}) == sorted(REAL)


@pytest.mark.parametrize(
    "name",
    ["KALSHI_PRODUCTION_DATABASE_URL", "KALSHI_G1_TIMESERIES_READ_DATABASE_URL", "DAGSTER_DATABASE_URL"],
)
def test_a_simulated_run_refuses_a_database_that_is_given_without_showing_its_password(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / ".env").write_text(f"{name}=postgresql://me:hunter2@db.example.com/real\n", encoding="utf-8")
    options = StackOptions(tmp_path / "data", SimulationOptions(), env_file=tmp_path / ".env")
    with pytest.raises(ConfigurationError, match=f"{name}: with --simulate invented rows") as refused:
        Stack(options, print)
    assert "hunter2" not in str(refused.value)
    Stack(replace(options, simulation=None), print)
    Stack(replace(options, databases_only=True), print)


def test_every_filter_catalog_and_address_of_the_exchange_that_can_be_set_is_left_aside() -> None:
    declared = {
        variable
        for settings, kept in (
            (MarketFilter, {"include_combos"}),
            (IcebergSettings, set()),
            (ExchangeSettings, {"rest_share", "ca_file"}),
        )
        for name, each in declared_settings(settings).items()
        if name not in kept
        for variable in each.variables
        if "{GATHERER}" not in variable
    }
    assert declared <= set(LEFT_ASIDE)


def test_children_and_commands_find_settings_left_aside_empty_before_those_of_the_users_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    folder, env_file = tmp_path / "data", tmp_path / ".env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in REAL.items()), encoding="utf-8")
    stack = Stack(StackOptions(folder, SimulationOptions(), headless=True, env_file=env_file), said.append)
    exchange = SimulatorAddresses(
        rest_url="http://127.0.0.1:1", ws_url="ws://127.0.0.1:1", control_url="http://127.0.0.1:1", key_id="simulated",
        key_file=str(folder / "key.pem"), pid=1,
    )  # fmt: skip
    for databases in ("start", "restart_dead_servers"):
        monkeypatch.setattr(DatabaseStack, databases, lambda self, *_: given_addresses(self))
    monkeypatch.setattr(Stack, "_start_exchange", lambda self, _simulation: setattr(self, "exchange", exchange))
    monkeypatch.setattr(Stack, "_start_services", lambda _self: None)
    with stack:
        environ = dict(stack.environ)
    for found in (environ, dotenv_values(env_file)):
        assert {found[name] for name in REAL} == {"", "simulated", (folder / "lake").as_uri()}
        assert found["KALSHI_API_KEY_ID"] == "simulated"
    assert f"these settings are left aside: {', '.join(sorted(REAL))}" in said[0]


def given_addresses(databases: DatabaseStack) -> None:
    """Fill in addresses as its start would."""
    url = "postgresql://me@127.0.0.1:1/x"
    databases.production = databases.dagster = url
    databases.timeseries = databases.catalog = dict.fromkeys(("g1", "g2", "g3"), url)
