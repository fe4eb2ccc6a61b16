"""Trades from the exchange's listing, as Dagster asks for them: days that nobody recorded, and hours as they close."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.market.times import HOUR, hour_of, us_from_datetime
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.checks.trades import trade_parity_last_day
from kalshi_platform.orchestration.partitions import DAY, day_key, hour_key, request_range
from kalshi_platform.orchestration.resources import ProductionDatabase
from kalshi_platform_tests.fixtures.exchange import running_exchange
from kalshi_platform_tests.fixtures.gatherer_service import client_settings
from kalshi_platform_tests.integration.orchestration.conftest import HOUR0_US, Platform, hour

FIRST = hour_of(SYSTEM_CLOCK.now() - timedelta(days=5)).replace(hour=0)


@pytest.fixture
def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerThread]:
    """An exchange that closes and backfills are told of."""
    with running_exchange(tmp_path, markets=2, rate=0) as running:
        monkeypatch.setenv("KALSHI_CHECK_TRADES", "yes")
        monkeypatch.setattr(
            ProductionDatabase, "rest_client", lambda _: RestClient(client_settings(running), SYSTEM_CLOCK)
        )
        yield running


def trade(exchange: ServerThread, us: int) -> None:
    ticker = exchange.tickers()[0]
    exchange.publish({"kind": "trade", "ticker": ticker, "yes_price_e4": 4_000, "count_e2": 100, "exchange_ts_us": us})


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (check,) = [each for each in result.get_asset_check_evaluations() if each.check_name == "trade_parity"]
    return check


def test_a_range_of_days_without_a_recording_is_one_run(platform: Platform, exchange: ServerThread) -> None:
    for hours in (1, 2, 26):
        trade(exchange, us_from_datetime(FIRST + hours * HOUR))
    days = [day_key(FIRST), day_key(FIRST + DAY)]
    result = platform.run(request_range([keys.TRADES_BACKFILL], *days), "backfill_trades")
    assert result.success
    check = check_of(result)
    assert check.passed
    figures = {name: check.metadata[name].value for name in ("hours", "proved_hours", "trades_inserted")}
    assert figures == {"hours": 48, "proved_hours": 48, "trades_inserted": 3}
    records = platform.instance.fetch_materializations(keys.TRADES_BACKFILL, limit=5).records
    rows = {each.partition_key: each.asset_materialization.metadata["dagster/row_count"].value for each in records}  # type: ignore[union-attr]
    assert rows == dict(zip(days, (2, 1), strict=True))
    # A trade that the exchange does not know is an error that names its market.
    changed = f"exchange_ts = '{(FIRST + 2 * HOUR).isoformat()}'"
    platform.world.rows(f"UPDATE trades SET trade_id = 'unknown' WHERE {changed} RETURNING 1")
    check = check_of(platform.run(dg.RunRequest(partition_key=days[0]), "backfill_trades"))
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert f"{FIRST + 2 * HOUR:%Y-%m-%d %H:00} {exchange.tickers()[0]}: 1 only in production" in str(
        check.metadata["where"].value
    )


def checked(result: object) -> dg.AssetCheckResult:
    assert isinstance(result, dg.AssetCheckResult)
    return result


def test_closing_an_hour_completes_its_trades_and_says_so(platform: Platform, exchange: ServerThread) -> None:
    trade(exchange, HOUR0_US + 60_000_000)
    closing = dg.RunRequest(partition_key=hour_key(hour(0)), asset_selection=list(keys.PRODUCTION_HOURLY))
    check = check_of(platform.run(closing))
    assert (check.passed, check.metadata["trades_inserted"].value) == (True, 1)
    assert platform.world.rows("SELECT source FROM trades") == [("rest",)]
    database = ProductionDatabase()
    assert checked(trade_parity_last_day(production_database=database)).passed
    with platform.world.production.transaction() as transaction:
        transaction.execute("DELETE FROM trade_checks")
    last_day = checked(trade_parity_last_day(production_database=database))
    assert (last_day.passed, last_day.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert last_day.metadata["hours_not_checked"].value == 1


def test_days_with_hours_that_could_not_be_compared_are_requested_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> list[tuple[str | None, dict[str, str]]] | str | None:
        moment = FIRST + timedelta(days=5, hours=1, minutes=15)
        found = platform.evaluate("compare_trades_again", moment, production_database=ProductionDatabase())
        if isinstance(found, str):
            return found
        return [(each.partition_key, dict(each.tags)) for each in found]

    assert "KALSHI_CHECK_TRADES" in str(asked())
    monkeypatch.setenv("KALSHI_CHECK_TRADES", "yes")
    states = {0: "not checked", 1: "partial", 2: "differs", 3: None, 4: "filled"}
    with platform.world.production.transaction() as transaction:
        for number, state in states.items():
            at = FIRST + number * DAY + HOUR
            transaction.execute("INSERT INTO hour_closes (hour) VALUES (%s)", (at,))
            if state is not None:
                transaction.execute(
                    "INSERT INTO trade_checks (hour, state, checked_at) VALUES (%s, %s, now())", (at, state)
                )
    first_two = {
        "dagster/asset_partition_range_start": day_key(FIRST),
        "dagster/asset_partition_range_end": day_key(FIRST + DAY),
    }
    assert asked() == [(None, first_two), (day_key(FIRST + 3 * DAY), {})]
    with platform.world.production.transaction() as transaction:
        transaction.execute("DELETE FROM hour_closes WHERE hour < %s", (FIRST + 4 * DAY,))
    assert asked() == "the trades of all closed hours of the last 7 days were compared"
