"""What is announced of markets and events, in `market_lifecycle` and in the catalog with its history."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import RunningGatherer, running_gatherer


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[ServerThread]:
    with running_exchange(tmp_path, markets=3, rate=0) as running:
        yield running


@pytest.fixture
def gatherer(gatherer_settings: SettingsFactory, exchange: ServerThread) -> Iterator[RunningGatherer]:
    with running_gatherer(gatherer_settings(), exchange) as running:
        running.follows(3)
        yield running


def market_row(gatherer: RunningGatherer, ticker: str, columns: str) -> tuple[Any, ...] | None:
    found = gatherer.catalog(f"SELECT {columns} FROM markets WHERE ticker = '{ticker}'")
    return found[0] if found else None


def comes_true(gatherer: RunningGatherer, ticker: str, columns: str, expected: tuple[Any, ...]) -> None:
    eventually(
        lambda: market_row(gatherer, ticker, columns) == expected,
        within_s=15.0,
        what=f"{columns} of {ticker} is {expected}, it is {market_row(gatherer, ticker, columns)}",
    )


def history(gatherer: RunningGatherer, ticker: str) -> list[str]:
    """Statuses of all versions; each but the last has an end, which is the beginning of the next."""
    query = f"SELECT status, valid_from, valid_to FROM markets_history WHERE ticker = '{ticker}' ORDER BY valid_from"
    versions = gatherer.catalog(query)
    assert [version[2] for version in versions] == [*(version[1] for version in versions[1:]), None]
    return [version[0] for version in versions]


def announced(gatherer: RunningGatherer, ticker: str, *kinds: str) -> list[dict[str, Any]]:
    """Wait until exactly these announcements are stored; return their contents."""
    query = f"SELECT event_type, content FROM market_lifecycle WHERE ticker = '{ticker}' ORDER BY seq"
    eventually(
        lambda: [kind for kind, _ in gatherer.rows(query)] == list(kinds),
        what=f"{kinds}; there is {[kind for kind, _ in gatherer.rows(query)]}",
    )
    contents = [content for _, content in gatherer.rows(query)]
    return [json.loads(content) if isinstance(content, str) else content for content in contents]


def test_a_pause_and_its_end(exchange: ServerThread, gatherer: RunningGatherer) -> None:
    ticker = exchange.tickers()[0]
    exchange.market("deactivate", ticker=ticker)
    comes_true(gatherer, ticker, "status", ("inactive",))
    gatherer.follows(3)
    exchange.market("activate", ticker=ticker)
    comes_true(gatherer, ticker, "status", ("active",))
    contents = announced(gatherer, ticker, "deactivated", "activated")
    assert [content["is_deactivated"] for content in contents] == [True, False]
    assert history(gatherer, ticker) == ["active", "inactive", "active"]


def test_a_close_that_moves_and_a_market_that_reopens(exchange: ServerThread, gatherer: RunningGatherer) -> None:
    ticker = exchange.tickers()[0]
    (before,) = market_row(gatherer, ticker, "close_time") or (None,)
    exchange.market("move_close", ticker=ticker, close_in_s=7_200)
    comes_true(gatherer, ticker, f"close_time <> '{before}' AND close_time > now() + interval '1 hour'", (True,))
    exchange.market("close", ticker=ticker)
    comes_true(gatherer, ticker, "status", ("closed",))
    gatherer.follows(2)
    exchange.market("reopen", ticker=ticker, close_in_s=3_600)
    comes_true(gatherer, ticker, "status", ("active",))
    gatherer.follows(3)
    exchange.publish({"kind": "delta", "ticker": ticker, "side": "no", "price_e4": 1300, "delta_e2": 700})
    query = f"SELECT price_e4, delta_e2 FROM orderbook_deltas WHERE ticker = '{ticker}' AND price_e4 = 1300"
    eventually(lambda: gatherer.rows(query) == [(1300, 700)], what="a delta of the reopened market")
    announced(gatherer, ticker, "close_date_updated", "close_date_updated", "close_date_updated", "activated")
    statuses = history(gatherer, ticker)
    assert statuses[-1] == "active"
    assert "closed" in statuses


def test_a_scalar_result_a_dispute_and_the_second_determination(
    exchange: ServerThread, gatherer: RunningGatherer
) -> None:
    ticker = exchange.tickers()[0]
    columns = "status, result, settlement_value_e6"
    exchange.market("close", ticker=ticker)
    exchange.market("determine", ticker=ticker, result="yes")
    comes_true(gatherer, ticker, columns, ("determined", "yes", 1_000_000))
    exchange.market("dispute", ticker=ticker)
    exchange.market("determine", ticker=ticker, result="scalar", settlement_e4=3_725)
    comes_true(gatherer, ticker, columns, ("amended", "scalar", 372_500))
    exchange.market("settle", ticker=ticker)
    comes_true(gatherer, ticker, columns, ("finalized", "scalar", 372_500))
    comes_true(gatherer, ticker, "settlement_time IS NOT NULL", (True,))
    contents = announced(gatherer, ticker, "close_date_updated", "determined", "determined", "settled")
    assert [content["settlement_value"] for content in contents[1:3]] == ["1.0000", "0.3725"]
    times = f"SELECT exchange_ts IS NOT NULL FROM market_lifecycle WHERE ticker = '{ticker}' ORDER BY seq"
    assert gatherer.rows(times) == [(False,), (True,), (True,), (True,)]
    statuses = history(gatherer, ticker)
    assert [status for status in statuses if status not in ("active", "closed")] == [
        "determined",
        "amended",
        "finalized",
    ]


def test_a_dispute_without_an_announcement_is_found_by_the_next_sync(
    gatherer_settings: SettingsFactory, exchange: ServerThread
) -> None:
    with running_gatherer(gatherer_settings(reconcile_interval_s=0.5), exchange) as gatherer:
        gatherer.follows(3)
        ticker = exchange.tickers()[0]
        exchange.market("close", ticker=ticker)
        exchange.market("determine", ticker=ticker, result="no")
        comes_true(gatherer, ticker, "status, result", ("determined", "no"))
        exchange.market("dispute", ticker=ticker)
        # Markets that wait for settlement are asked about every hour: an hour passes.
        gatherer_url = gatherer.settings.catalog_url
        with psycopg2.connect(gatherer_url) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE markets SET known_at = known_at - interval '2 hours' WHERE ticker = %s", (ticker,))
        connection.close()
        comes_true(gatherer, ticker, "status", ("disputed",))


def test_a_provisional_market_that_vanishes_keeps_its_row_and_what_was_announced(
    exchange: ServerThread, gatherer: RunningGatherer
) -> None:
    ticker = exchange.market("create", visible_in_s=0.0, weight=0.0, provisional=True)["ticker"]
    gatherer.follows(4)
    comes_true(gatherer, ticker, "status, is_provisional", ("active", True))
    exchange.market("close", ticker=ticker)
    comes_true(gatherer, ticker, "status", ("closed",))
    exchange.market("determine", ticker=ticker, result="no")
    gatherer.follows(3)
    comes_true(gatherer, ticker, "status, result, settlement_value_e6", ("vanished", "no", 0))
    assert history(gatherer, ticker)[-2:] == ["determined", "vanished"]
    comes_true(gatherer, ticker, "payload->>'settlement_value_dollars'", ("0.0000",))
    announced(gatherer, ticker, "created", "close_date_updated", "determined")


def test_grid_and_metadata_that_change_in_place(exchange: ServerThread, gatherer: RunningGatherer) -> None:
    ticker = exchange.tickers()[0]
    (before,) = market_row(gatherer, ticker, "price_level_structure") or (None,)
    structure = "deci_cent" if before != "deci_cent" else "tapered_deci_cent"
    exchange.market("change_grid", ticker=ticker, structure=structure)
    comes_true(gatherer, ticker, "price_level_structure", (structure,))
    comes_true(gatherer, ticker, "strpos(price_ranges, '0.0010') > 0", (True,))
    exchange.market("change_metadata", ticker=ticker, strike=0.75)
    comes_true(gatherer, ticker, "(payload->>'floor_strike')::numeric = 0.75", (True,))
    announced(gatherer, ticker, "price_level_structure_updated", "metadata_updated")
    assert history(gatherer, ticker) == ["active", "active", "active"]
    gatherer.follows(3)


def test_an_event_is_announced_and_its_fees_change(exchange: ServerThread, gatherer: RunningGatherer) -> None:
    market = exchange.market("create", visible_in_s=0.0)
    event = market["event_ticker"]
    eventually(lambda: gatherer.catalog(f"SELECT series_ticker FROM events WHERE ticker = '{event}'"), what="the event")
    exchange.market("change_fees", ticker=market["ticker"])
    query = f"SELECT payload->>'fee_type_override' FROM events WHERE ticker = '{event}'"
    eventually(lambda: gatherer.catalog(query) == [("flat",)], what="the fee in the catalog")
    (_, content) = announced(gatherer, event, "event_created", "event_fee_update")
    assert content["fee_type_override"] == "flat"
    versions = f"SELECT payload->>'fee_type_override' FROM events_history WHERE ticker = '{event}' ORDER BY valid_from"
    assert gatherer.catalog(versions) == [(None,), ("flat",)]


def test_a_market_that_opens_by_the_clock_is_followed_before_and_active_soon_after(
    exchange: ServerThread, gatherer: RunningGatherer
) -> None:
    ticker = exchange.market("create", visible_in_s=0.0, open_in_s=2.5)["ticker"]
    comes_true(gatherer, ticker, "status", ("initialized",))
    gatherer.follows(4)
    comes_true(gatherer, ticker, "status", ("active",))
    announced(gatherer, ticker, "created")


def test_a_new_market_is_followed_before_rest_shows_it(exchange: ServerThread, gatherer: RunningGatherer) -> None:
    ticker = exchange.market("create", visible_in_s=5.0)["ticker"]
    gatherer.follows(4)
    assert market_row(gatherer, ticker, "status") is None
    exchange.publish({"kind": "delta", "ticker": ticker, "side": "yes", "price_e4": 4200, "delta_e2": 100})
    query = f"SELECT count(*) FROM orderbook_deltas WHERE ticker = '{ticker}' AND price_e4 = 4200"
    eventually(lambda: gatherer.value(query) == 1, what="its first delta")
    comes_true(gatherer, ticker, "status", ("active",))


def test_an_answer_older_than_the_announcement_is_requested_again(
    exchange: ServerThread, gatherer: RunningGatherer
) -> None:
    ticker = exchange.tickers()[0]
    exchange.publish(
        {
            "kind": "raw", "channel": "market_lifecycle_v2", "ticker": ticker,
            "msg": {"market_ticker": ticker, "event_type": "deactivated", "is_deactivated": True},
        }
    )  # fmt: skip
    before = gatherer.catalog_status.fetched
    eventually(lambda: gatherer.catalog_status.fetched >= before + 2, what="the second question")
    exchange.fault("suppress_lifecycle", count=1)
    exchange.market("deactivate", ticker=ticker)
    comes_true(gatherer, ticker, "status", ("inactive",))
