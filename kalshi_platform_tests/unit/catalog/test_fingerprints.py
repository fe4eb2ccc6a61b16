"""What counts as a change of a market, event or series."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kalshi_platform.catalog.fingerprints import (
    event_fingerprint,
    market_fingerprint,
    series_fingerprint,
    vanished_fingerprint,
)
from kalshi_platform.catalog.rows import MARKETS
from kalshi_platform.exchange.parse.rest import parse_event, parse_market, parse_series
from kalshi_platform.market.catalog import MarketInfo
from kalshi_platform.storage.copy import encode

MARKET: dict[str, Any] = {
    "ticker": "KXRAIN-26NOV23-T1",
    "event_ticker": "KXRAIN-26NOV23",
    "status": "active",
    "title": "Rain?",
    "open_time": "2026-11-22T16:00:00Z",
    "close_time": "2026-11-24T04:59:00.5Z",
    "result": "",
    "floor_strike": 0.25,
    "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
    "settlement_value_dollars": None,
    "updated_time": "2026-11-22T15:00:00Z",
}


def market(**changes: Any) -> MarketInfo:
    return parse_market(MARKET | changes)


@pytest.mark.parametrize(
    "field",
    [
        "yes_bid_dollars",
        "yes_ask_size_fp",
        "no_bid_dollars",
        "no_ask_dollars",
        "last_price_dollars",
        "previous_yes_bid_dollars",
        "volume_fp",
        "volume_24h_fp",
        "open_interest_fp",
        "liquidity_dollars",
        "updated_time",
    ],
)
def test_trading_fields_do_not_change_the_fingerprint(field: str) -> None:
    assert market_fingerprint(market(**{field: "2026-11-23T00:00:00Z"})) == market_fingerprint(market())


@pytest.mark.parametrize(
    "change",
    [
        {"status": "closed"},
        {"result": "yes"},
        {"settlement_value_dollars": "1.0000"},
        {"close_time": "2026-11-24T05:59:00Z"},
        {"title": "Rain!"},
        {"floor_strike": 0.5},
        {"price_ranges": []},
        {"a field of tomorrow": 1},
        {"exchange_index": 2},
    ],
)
def test_describing_fields_change_the_fingerprint_of_a_market(change: dict[str, Any]) -> None:
    assert market_fingerprint(market(**change)) != market_fingerprint(market())


def test_the_order_of_fields_and_older_words_are_no_change() -> None:
    turned = parse_market(dict(reversed(MARKET.items())) | {"status": "open"})
    assert market_fingerprint(turned) == market_fingerprint(market())


def test_events_and_series_change_with_their_words_only() -> None:
    event = {"event_ticker": "E", "series_ticker": "S", "title": "t"}
    assert event_fingerprint(parse_event(event)) == event_fingerprint(
        parse_event(event | {"last_updated_ts": "2026-11-23T00:00:00Z", "markets": [{"ticker": "x"}]})
    )
    assert event_fingerprint(parse_event(event)) != event_fingerprint(parse_event(event | {"title": "u"}))
    series = {"ticker": "S", "title": "t", "tags": None}
    assert series_fingerprint(parse_series(series)) == series_fingerprint(parse_series(series | {"volume_fp": "9"}))
    assert series_fingerprint(parse_series(series)) != series_fingerprint(parse_series(series | {"tags": ["a"]}))


def test_a_vanished_market_is_described_differently() -> None:
    assert vanished_fingerprint("a") not in (vanished_fingerprint("b"), market_fingerprint(market()))


def test_a_row_gives_the_struct_back() -> None:
    info = market(settlement_value_dollars="0.5", status="determined", result="yes")
    *values, payload, _fingerprint = MARKETS.row(info)
    assert MARKETS.struct(values, payload) == info
    assert json.loads(payload)["ticker"] == info.ticker


def test_nul_characters_do_not_reach_the_database() -> None:
    data = MARKETS.arrow([MARKETS.row(market(title="a\x00b"))], datetime(2026, 11, 22, tzinfo=UTC))
    copied = encode(MARKETS.staged, data)
    assert b"a\x00b" not in copied
    assert b"\\u0000" not in copied
    assert "a\ufffdb".encode() in copied


def test_times_out_of_range_are_refused_for_their_market_alone() -> None:
    with pytest.raises(ValueError, match="between the years"):
        MARKETS.row(msgspec.structs.replace(market(), close_time_us=10**18))
