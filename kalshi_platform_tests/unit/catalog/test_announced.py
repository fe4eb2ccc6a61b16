"""Announcements against answers of REST."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kalshi_platform.catalog.announced import agrees, applied, created, event_agrees
from kalshi_platform.exchange.parse.rest import parse_event, parse_market
from kalshi_platform.market.catalog import MarketInfo


def market(**changes: Any) -> MarketInfo:
    content = {
        "ticker": "E-A", "event_ticker": "E", "status": "active", "close_time": "2026-11-24T04:59:00.5Z",
        "price_level_structure": "linear_cent", "floor_strike": 0.25, "result": "", **changes,
    }  # fmt: skip
    return parse_market(content)


@pytest.mark.parametrize(
    ("event_type", "message", "newer", "older"),
    [
        ("activated", {}, {}, {"status": "inactive"}),
        ("deactivated", {}, {"status": "inactive"}, {}),
        ("deactivated", {}, {"status": "closed"}, {}),
        ("close_date_updated", {"close_ts": 1_795_496_340}, {}, {"close_time": "2026-11-25T00:00:00Z"}),
        ("determined", {"result": "yes", "settlement_value": "1.0000"},
         {"status": "determined", "result": "yes", "settlement_value_dollars": "1.0000"}, {"status": "closed"}),
        ("determined", {"result": "no", "settlement_value": "0.0000"},
         {"status": "amended", "result": "no", "settlement_value_dollars": "0.0000"},
         {"status": "disputed", "result": "yes", "settlement_value_dollars": "1.0000"}),
        ("determined", {"result": "scalar", "settlement_value": "0.3725"},
         {"status": "finalized", "result": "scalar", "settlement_value_dollars": "0.372500"},
         {"status": "finalized", "result": "scalar", "settlement_value_dollars": "0.4"}),
        ("settled", {"settled_ts": 1}, {"status": "finalized"}, {"status": "determined"}),
        ("price_level_structure_updated", {"price_level_structure": "deci_cent"},
         {"price_level_structure": "deci_cent"}, {}),
        ("metadata_updated", {"floor_strike": 0.3}, {"floor_strike": 0.3}, {}),
        ("metadata_updated", {"yes_sub_title": "x"}, {"yes_sub_title": "x"}, {}),
    ],
)  # fmt: skip
def test_an_answer_agrees_once_it_is_as_new_as_the_announcement(
    event_type: str, message: dict[str, Any], newer: dict[str, Any], older: dict[str, Any]
) -> None:
    assert agrees(market(**newer), event_type, message)
    assert not agrees(market(**older), event_type, message)


@pytest.mark.parametrize("event_type", ["created", "something_new"])
def test_what_is_not_known_contradicts_nothing(event_type: str) -> None:
    assert agrees(market(), event_type, {"anything": 1})


@pytest.mark.parametrize(
    "message", [{}, {"close_ts": None}, {"close_ts": "soon"}, {"close_ts": True}, {"close_ts": 10**20}]
)
def test_a_broken_time_in_an_announcement_changes_nothing(message: dict[str, Any]) -> None:
    assert agrees(market(), "close_date_updated", message)
    assert applied(market(), "close_date_updated", message) == market()


def test_an_announced_end_is_merged_into_the_last_description() -> None:
    determined = applied(
        market(), "determined", {"result": "scalar", "settlement_value": "0.3725", "determination_ts": 9}
    )
    assert (determined.status, determined.result, determined.settlement_value_e6) == ("determined", "scalar", 372_500)
    assert json.loads(determined.payload)["settlement_value_dollars"] == "0.3725"
    assert json.loads(determined.payload)["floor_strike"] == 0.25
    settled = applied(determined, "settled", {"settled_ts": 1_795_383_600})
    assert (settled.status, settled.result, settled.settlement_ts_us) == ("finalized", "scalar", 1_795_383_600_000_000)
    assert parse_market(json.loads(settled.payload)).settlement_ts_us == settled.settlement_ts_us


def test_a_new_market_is_described_by_its_announcement() -> None:
    message = {
        "market_ticker": "E-B", "event_type": "created", "exchange_index": 2, "open_ts": 1_795_449_600,
        "close_ts": 1_795_582_740, "price_level_structure": "deci_cent", "price_ranges": [{"start": "0", "end": "1"}],
        "additional_metadata": {"event_ticker": "E", "title": "T", "can_close_early": True},
    }  # fmt: skip
    info = created(message)
    assert info is not None
    assert (info.ticker, info.event_ticker, info.status, info.exchange_index) == ("E-B", "E", "initialized", 2)
    assert (info.open_time_us, info.close_time_us) == (1_795_449_600_000_000, 1_795_582_740_000_000)
    assert (info.title, info.can_close_early, info.price_level_structure) == ("T", True, "deci_cent")


@pytest.mark.parametrize(
    "message", [{}, {"market_ticker": "A"}, {"market_ticker": "A", "additional_metadata": []}, {"market_ticker": 5}]
)
def test_an_announcement_without_names_describes_nothing(message: dict[str, Any]) -> None:
    assert created(message) is None


def test_an_event_agrees_once_it_has_the_announced_fees() -> None:
    message = {"event_ticker": "E", "fee_type_override": "flat", "fee_multiplier_override": 0.5}
    assert not event_agrees(parse_event({"event_ticker": "E"}), message)
    assert event_agrees(parse_event(message), message)
    assert event_agrees(parse_event({"event_ticker": "E"}), {"fee_type_override": None})
