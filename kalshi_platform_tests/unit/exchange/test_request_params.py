"""Tests the checks of filters that go together, before anything is sent, and the costs of requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kalshi_platform.errors import InvalidQuery, PermanentError
from kalshi_platform.exchange import request_params as queries
from kalshi_platform.exchange.budget import ReadBudget, shared_budget
from kalshi_platform.exchange.parse.rest import parse_account_limits, parse_endpoint_costs
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform_tests.fixtures.clocks import FakeClock


def markets(**given: Any) -> queries.Params:
    values: dict[str, Any] = {
        "status": None, "mve_filter": None, "tickers": None, "event_ticker": None, "series_ticker": None,
    }  # fmt: skip
    return queries.market_params(**{**values, **given})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"status": "paused", "mve_filter": "only"},
        {"status": "open", "min_created_ts": 1, "max_created_ts": 2},
        {"status": "unopened", "min_created_ts": 1},
        {"min_created_ts": 1, "tickers": ["A", "B"]},
        {"status": "closed", "max_close_ts": 9},
        {"min_close_ts": 1, "event_ticker": "E"},
        {"status": "settled", "min_settled_ts": 1},
        {"min_updated_ts": 1, "mve_filter": "exclude"},
        {"min_updated_ts": 1, "mve_filter": "exclude", "series_ticker": "S"},
    ],
)
def test_combinations_that_kalshi_accepts_are_sent_unchanged(given: dict[str, Any]) -> None:
    sent = dict(markets(**given))
    assert sent.pop("limit") == "1000"
    assert sent == {name: ",".join(v) if isinstance(v, list) else str(v) for name, v in given.items()}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"status": "active"}, "unopened"),
        ({"mve_filter": "none"}, "exclude"),
        ({"status": "closed", "min_created_ts": 1}, "created"),
        ({"status": "open", "min_close_ts": 1}, "close"),
        ({"status": "closed", "min_settled_ts": 1}, "settled"),
        ({"status": "open", "min_updated_ts": 1, "mve_filter": "exclude"}, "no status"),
        ({"min_updated_ts": 1}, "mve_filter=exclude"),
        ({"min_updated_ts": 1, "mve_filter": "only"}, "mve_filter=exclude"),
        ({"min_updated_ts": 1, "mve_filter": "exclude", "tickers": ["A"]}, "series_ticker only"),
        ({"min_updated_ts": 1, "mve_filter": "exclude", "event_ticker": "E"}, "series_ticker only"),
        ({"min_created_ts": 1, "min_close_ts": 1}, "one kind"),
        ({"min_created_ts": 2, "max_created_ts": 1}, "after"),
        ({"tickers": []}, "comma list"),
        ({"tickers": ["A,B"]}, "comma list"),
    ],
)
def test_combinations_that_kalshi_refuses_are_named(given: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidQuery, match=word) as caught:
        markets(**given)
    assert isinstance(caught.value, PermanentError)


@pytest.mark.parametrize(
    "call",
    [
        lambda: queries.event_params(status="paused", tickers=None, series_ticker=None),
        lambda: queries.combo_event_params(series_ticker="S", collection_ticker="C"),
        lambda: queries.historical_market_params(
            tickers=["A"], event_ticker=None, series_ticker=None, mve_filter="exclude"
        ),
        lambda: queries.trade_params("A", 2, 1, None),
        lambda: queries.book_params([]),
        lambda: queries.book_params(["A"] * 101),
        lambda: queries.candle_params(0, 60, 5),
        lambda: queries.candle_params(61, 60, 1),
        lambda: queries.candle_params(0, 60 * 5_000, 1),
        lambda: queries.candle_params(0, 60 * 100, 1, markets=100, limit=queries.MAX_CANDLES_BATCH),
        lambda: queries.segment(""),
    ],
)
def test_requests_beyond_the_limits_raise_invalid_query(call: Callable[[], Any]) -> None:
    with pytest.raises(InvalidQuery):
        call()


def test_spans_up_to_the_limit_pass() -> None:
    queries.candle_params(0, 60 * 4_999, 1)
    queries.candle_params(0, 60 * 99, 1, markets=100, limit=queries.MAX_CANDLES_BATCH)


SETTINGS = ExchangeSettings(rest_url="https://one.example/trade-api/v2", key_id="k", reads_per_second=2.0)


def test_one_budget_for_a_key_in_a_process() -> None:
    clock = FakeClock()
    first = shared_budget(SETTINGS, clock)
    assert shared_budget(replace(SETTINGS, user_agent="another"), clock) is first
    assert shared_budget(replace(SETTINGS, key_id="other"), clock) is not first
    assert [first.spend("/markets") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert shared_budget(SETTINGS, clock).requests_left() == -1.0


def test_the_budget_applies_its_share_of_the_accounts_limits_and_the_costs_of_requests() -> None:
    clock = FakeClock()
    budget = ReadBudget(replace(SETTINGS, rest_share=0.5), clock)
    budget.resize(parse_account_limits({"read": {"refill_rate": 400, "bucket_capacity": 800}}))
    clock.step(10)
    assert budget.requests_left() == 40.0
    costs = {"method": "GET", "path": "/trade-api/v2/markets/{ticker}/orderbook", "cost": 100}
    other = {"method": "POST", "path": "/trade-api/v2/markets", "cost": 1}
    budget.apply_costs(parse_endpoint_costs({"default_cost": 20, "endpoint_costs": [costs, other]}))
    assert budget.requests_left() == 20.0
    budget.spend("/markets/A-T0.5/orderbook")
    assert budget.requests_left() == 15.0
    budget.spend("/markets")
    assert budget.requests_left() == 14.0
    budget.drain()
    assert budget.requests_left() == 0.0
