"""Odd values in every field of every REST object: typed errors, or something that the catalog's tables can hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from kalshi_platform.catalog.rows import EVENTS, MARKETS, SERIES
from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse import rest as parse_rest
from kalshi_platform.exchange.parse.lenient_json import decode_json
from kalshi_platform.exchange.responses import error_from_response, get_field, get_list
from kalshi_platform.market.catalog import EventInfo, MarketInfo, SeriesInfo
from kalshi_platform_tests.unit.exchange.mutations import ODD_VALUES, encoded

TIME = "2026-11-22T20:44:01.123456Z"
RANGES = [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}]
SIDE = {"open_dollars": "0.5", "high_dollars": "0.5", "low_dollars": "0.5", "close_dollars": "0.5"}
OBJECTS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "market": (parse_rest.parse_market, {
        "ticker": "E-A", "event_ticker": "E", "market_type": "binary", "status": "active", "title": "T",
        "open_time": TIME, "close_time": TIME, "expected_expiration_time": TIME, "created_time": TIME,
        "updated_time": TIME, "result": "yes", "settlement_value_dollars": "1.0000", "settlement_ts": TIME,
        "price_level_structure": "x", "price_ranges": RANGES, "is_provisional": False, "mve_collection_ticker": "",
        "exchange_index": 1, "can_close_early": True, "floor_strike": 0.25,
    }),
    "event": (parse_rest.parse_event, {
        "event_ticker": "E", "series_ticker": "S", "title": "T", "mutually_exclusive": True, "strike_date": TIME,
        "last_updated_ts": TIME, "exchange_index": 0, "markets": [], "product_metadata": {"a": 1},
    }),
    "series": (parse_rest.parse_series, {
        "ticker": "S", "title": "T", "fee_type": "flat", "fee_multiplier": 1, "last_updated_ts": TIME, "tags": None,
        "exchange_index": 0,
    }),
    "book": (lambda obj: parse_rest.parse_rest_book("A", obj), {
        "orderbook_fp": {"yes_dollars": [["0.5", "1.00"]], "no_dollars": [["0.4", "2.00"]]},
    }),
    "trade": (lambda obj: parse_rest.parse_rest_trade(obj, 1), {
        "trade_id": "t", "ticker": "A", "count_fp": "1.00", "yes_price_dollars": "0.5", "no_price_dollars": "0.5",
        "taker_outcome_side": "yes", "created_time": TIME, "is_block_trade": False,
    }),
    "status": (parse_rest.parse_exchange_status, {
        "exchange_active": True, "trading_active": True, "exchange_estimated_resume_time": TIME,
        "exchange_index_statuses": [{"exchange_index": 0, "exchange_active": True, "trading_active": True}],
    }),
    "schedule": (parse_rest.parse_schedule, {"schedule": {
        "standard_hours": [{"start_time": TIME, "monday": [{"open_time": "00:00", "close_time": "23:59"}]}],
        "maintenance_windows": [{"start_datetime": TIME, "end_datetime": TIME}],
    }}),
    "candles": (parse_rest.parse_candlesticks, {"ticker": "A", "candlesticks": [{
        "end_period_ts": 1_795_380_300, "yes_bid": SIDE, "yes_ask": SIDE, "price": {**SIDE, "mean_dollars": "0.5"},
        "volume_fp": "1.00", "open_interest_fp": "1.00",
    }]}),
    "limits": (parse_rest.parse_account_limits, {"usage_tier": "x", "read": {"refill_rate": 1, "bucket_capacity": 2}}),
    "costs": (parse_rest.parse_endpoint_costs, {
        "default_cost": 10, "endpoint_costs": [{"method": "GET", "path": "/a", "cost": 2}],
    }),
    "cutoff": (parse_rest.parse_cutoff, {"market_settled_ts": TIME, "trades_created_ts": TIME}),
}  # fmt: skip
INT64 = range(-(2**63), 2**63)


def variants(value: Any, odd: Any) -> Iterator[Any]:
    """`value` with `odd` in place of each part of it, and without each part."""
    yield odd
    if isinstance(value, dict):
        for key in value:
            yield {name: each for name, each in value.items() if name != key}
            yield from ({**value, key: changed} for changed in variants(value[key], odd))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in variants(value[index], odd))


def decoded(content: bytes) -> Any:
    """What the client makes of a body; None where it is no JSON."""
    try:
        return decode_json(content)[0]
    except UnparsableMessage:
        return None


def storable(found: Any) -> None:
    """Whatever was parsed fits its row."""
    if isinstance(found, MarketInfo):
        row = MARKETS.row(found)
    elif isinstance(found, EventInfo):
        row = EVENTS.row(found)
    elif isinstance(found, SeriesInfo):
        row = SERIES.row(found)
    else:
        row = tuple(msgspec.to_builtins(each) for each in found) if isinstance(found, list | tuple) else ()
    for value in row:
        if isinstance(value, int):
            assert value in INT64
        elif isinstance(value, str):
            value.encode()
    index = getattr(found, "exchange_index", 0)
    assert 0 <= index < 2**31


@pytest.mark.parametrize("name", OBJECTS)
def test_odd_values_anywhere_are_unparsable_or_can_be_stored(name: str) -> None:
    parse, whole = OBJECTS[name]
    storable(parse(json.loads(json.dumps(whole))))
    for odd in ODD_VALUES:
        for variant in variants(whole, odd):
            body = decoded(encoded(variant))
            with suppress(UnparsableMessage):
                storable(parse(body))


@pytest.mark.parametrize("odd", ODD_VALUES, ids=lambda value: repr(value)[:30])
def test_error_bodies_and_lists_of_any_shape(odd: Any) -> None:
    for variant in (odd, {"error": odd}, {"error": {"code": odd, "message": odd}}, {"code": odd, "message": odd}):
        body = decoded(encoded(variant))
        assert len(str(error_from_response("/events", 400, body))) < 1_000
        for read in (get_list, get_field):
            with suppress(UnparsableMessage):
                read(body, "events")
