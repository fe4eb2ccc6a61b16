from __future__ import annotations

import pytest

from kalshi_platform.lab.simulator.engine import universe
from kalshi_platform.lab.simulator.engine.universe import Trade
from kalshi_platform.lab.simulator.server import queries
from kalshi_platform.lab.simulator.server.queries import BadQuery, market_filter, page, trade_page
from kalshi_platform_tests.unit.lab.simulator.helpers import START_US, small_venue

START_S = START_US // 1_000_000


@pytest.mark.parametrize(
    "query",
    [
        {"status": "active"},
        {"status": "open,closed"},
        {"mve_filter": "both"},
        {"min_created_ts": "1", "status": "closed"},
        {"min_close_ts": "1", "status": "open"},
        {"max_settled_ts": "1", "status": "closed"},
        {"min_updated_ts": "1", "status": "open", "mve_filter": "exclude"},
        {"min_updated_ts": "1"},
        {"min_updated_ts": "1", "mve_filter": "exclude", "event_ticker": "E"},
        {"min_created_ts": "1", "min_close_ts": "1"},
        {"min_created_ts": "soon"},
    ],
)
def test_combinations_that_the_exchange_refuses(query: dict[str, str]) -> None:
    with pytest.raises(BadQuery):
        market_filter(query, START_US)


@pytest.mark.parametrize(
    "query",
    [
        {"min_created_ts": "1", "status": "open"},
        {"min_created_ts": "1", "status": "unopened"},
        {"max_close_ts": "9999999999", "status": "closed"},
        {"min_settled_ts": "1", "status": "settled"},
        {"min_updated_ts": "1", "mve_filter": "exclude", "series_ticker": "S"},
    ],
)
def test_combinations_that_the_exchange_takes(query: dict[str, str]) -> None:
    assert callable(market_filter(query, START_US))


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("unopened", "initialized"),
        ("open", "active"),
        ("paused", "inactive"),
        ("closed", "determined"),
        ("settled", "finalized"),
    ],
)
def test_words_of_the_request_name_other_statuses_in_the_answer(asked: str, answered: str) -> None:
    venue, _, _ = small_venue()
    market = venue.quoting[0]
    market.status = answered
    wanted = market_filter({"status": asked}, START_US)
    found = [each for each in venue.market_list if wanted(each)]
    assert market in found
    assert {each.status for each in found} == {answered}


def test_a_newborn_market_is_hidden_until_it_is_visible() -> None:
    venue, _, _ = small_venue()
    market = venue.quoting[0]
    market.visible_us = START_US + 1
    assert not market_filter({}, START_US)(market)
    assert market_filter({}, START_US + 1)(market)


def test_combos_are_distinguished() -> None:
    venue, _, _ = small_venue()
    only = [each for each in venue.market_list if market_filter({"mve_filter": "only"}, START_US)(each)]
    assert [each.is_combo for each in only] == [True]
    without = [each for each in venue.market_list if market_filter({"mve_filter": "exclude"}, START_US)(each)]
    assert len(only) + len(without) == len(venue.market_list)


def test_pages_cover_everything_once_even_while_items_are_added() -> None:
    items = list(range(10))
    seen: list[int] = []
    cursor = ""
    for _ in range(100):
        found, cursor = page(items, lambda item: item % 2 == 0, {"cursor": cursor}, limit=2)
        seen += found
        if len(items) < 14:
            items.append(len(items))
        if not cursor:
            break
    assert seen == sorted(set(seen))
    assert seen[:5] == [0, 2, 4, 6, 8]


def test_a_made_up_cursor_is_refused() -> None:
    with pytest.raises(BadQuery):
        page([1], lambda _: True, {"cursor": "!!"}, limit=1)


def test_trades_come_newest_first_and_new_ones_shift_no_page() -> None:
    trades = [Trade(START_US + n, f"id{n}", "T", 5_000, 100, 0) for n in range(7)]
    first, cursor = trade_page(trades, {"limit": "3"})
    trades.append(Trade(START_US + 99, "late", "T", 5_000, 100, 0))
    second, cursor = trade_page(trades, {"limit": "3", "cursor": cursor})
    third, end = trade_page(trades, {"limit": "3", "cursor": cursor})
    assert [trade.trade_id for trade in [*first, *second, *third]] == [f"id{n}" for n in range(6, -1, -1)]
    assert end == ""


def test_trade_bounds_are_inclusive_seconds() -> None:
    trades = [Trade((START_S + n) * 1_000_000, str(n), "T", 5_000, 100, 0) for n in range(5)]
    found, _ = trade_page(trades, {"min_ts": str(START_S + 1), "max_ts": str(START_S + 3)})
    assert [trade.trade_id for trade in found] == ["3", "2", "1"]


def test_event_status_matches_when_any_market_does() -> None:
    venue, _, _ = small_venue()
    event = venue.events[venue.quoting[0].event_ticker]
    venue.quoting[0].status = universe.CLOSED
    for status in ("open", "closed"):
        assert queries.event_filter(venue, {"status": status}, START_US, combos=False)(event)
    assert not queries.event_filter(venue, {"status": "settled"}, START_US, combos=False)(event)
