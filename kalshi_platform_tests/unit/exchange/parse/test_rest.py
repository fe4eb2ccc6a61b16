"""REST objects of today, of the legacy shape, and as production once answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse import rest as parse
from kalshi_platform_tests.fixtures.captures import REST_ANSWERS, recording

MARKET: dict[str, Any] = {
    "ticker": "A-1",
    "event_ticker": "A",
    "market_type": "binary",
    "status": "active",
    "open_time": "2026-11-22T16:00:00Z",
    "close_time": "2026-11-24T04:59:00.5Z",
    "created_time": "0001-01-01T00:00:00Z",
    "expected_expiration_time": None,
    "result": "",
    "price_ranges": [{"start": "0.0000", "step": "0.0100", "end": "1.0000"}],
    "yes_bid_dollars": "0.123456",
    "something_new": [1, {"b": 1, "a": 2}],
}


def test_a_market_keeps_the_whole_object_and_types_what_is_used() -> None:
    market = parse.parse_market(MARKET)
    assert (market.ticker, market.event_ticker, market.status, market.exchange_index) == ("A-1", "A", "active", 0)
    assert market.open_time_us == 1_795_363_200_000_000
    assert market.close_time_us == 1_795_496_340_500_000
    assert (market.created_us, market.updated_us, market.expected_expiration_us) == (None, None, None)
    assert (market.result, market.settlement_value_e6, market.is_provisional) == (None, None, False)
    assert market.price_ranges == '[{"end":"1.0000","start":"0.0000","step":"0.0100"}]'
    assert json.loads(market.payload) == MARKET
    assert parse.parse_market(dict(reversed(list(MARKET.items())))) == market


@pytest.mark.parametrize(
    ("sent", "status"), [("open", "active"), ("settled", "finalized"), ("disputed", "disputed"), ("odd", "odd")]
)
def test_legacy_statuses_are_mapped_and_unknown_ones_pass(sent: str, status: str) -> None:
    assert parse.parse_market({**MARKET, "status": sent}).status == status


def test_settlement_values_of_both_shapes() -> None:
    assert parse.parse_market({**MARKET, "settlement_value_dollars": "0.123456"}).settlement_value_e6 == 123_456
    assert parse.parse_market({**MARKET, "settlement_value": 100, "result": "yes"}).settlement_value_e6 == 1_000_000
    assert parse.parse_market({**MARKET, "settlement_value": 0, "result": ""}).settlement_value_e6 is None


def test_an_events_nested_markets_are_not_part_of_it() -> None:
    event = {
        "event_ticker": "A",
        "series_ticker": "S",
        "strike_date": "2026-11-24T05:00:00Z",
        "mutually_exclusive": True,
    }
    assert parse.parse_event({**event, "markets": [MARKET]}) == parse.parse_event(event)
    assert parse.parse_event(event).strike_date_us == 1_795_496_400_000_000


@pytest.mark.parametrize(
    "book",
    [
        {"orderbook_fp": {"yes_dollars": [["0.5600", "120.00"], ["0.5500", "300.00"]], "no_dollars": []}},
        {"ticker": "A-1", "orderbook_fp": {"yes_dollars": [["0.5500", "300.00"], ["0.5600", "120.00"]]}},
        {"orderbook": {"yes": [[56, 120], [55, 300]], "no": None, "yes_dollars": None}},
        {"orderbook": {"yes": [[56, 1]], "yes_dollars": [["0.55", 300], ["0.56", 120]], "no_dollars": None}},
    ],
)
def test_books_of_all_shapes(book: dict[str, Any]) -> None:
    assert parse.parse_rest_book("A-1", book) == (((5500, 30_000), (5600, 12_000)), ())


def test_a_trade_is_floored_to_the_millisecond_and_keeps_its_time() -> None:
    trade = parse.parse_rest_trade(
        {
            "trade_id": "t",
            "ticker": "A-1",
            "count_fp": "0.01",
            "yes_price_dollars": "0.0010",
            "no_price_dollars": "0.9990",
            "taker_outcome_side": "no",
            "created_time": "2026-11-22T20:44:01.123456Z",
        },
        77,
    )
    assert (trade.exchange_ts_us, trade.created_time_us) == (1_795_380_241_123_000, 1_795_380_241_123_456)
    assert (trade.count_e2, trade.yes_price_e4, trade.taker_side, trade.source) == (1, 10, "no", "rest")
    assert (trade.received_at_ns, trade.stream_id, trade.is_block_trade) == (77, 0, False)


def test_candles_with_and_without_suffixes_are_equal() -> None:
    ohlc = {"open": "0.5500", "low": "0.5500", "high": "0.5600", "close": "0.5600"}
    live = {
        "end_period_ts": 60,
        "yes_bid": {f"{key}_dollars": value for key, value in ohlc.items()},
        "yes_ask": {},
        "price": {"mean_dollars": "0.555000", "previous_dollars": None, "open_dollars": None},
        "volume_fp": "0.50",
        "open_interest_fp": "911.00",
    }
    historical = {
        "end_period_ts": 60,
        "yes_bid": ohlc,
        "price": {"mean": "0.555000"},
        "volume": "0.50",
        "open_interest": "911.00",
    }
    [one] = parse.parse_candlesticks({"ticker": "A-1", "candlesticks": [live]})
    [other] = parse.parse_candlesticks({"markets": [{"market_ticker": "A-1", "candlesticks": [historical]}]})
    assert one == other
    assert (one.yes_bid.high_e4, one.yes_ask.open_e4, one.price_mean_e6, one.volume_e2) == (5600, None, 555_000, 50)


def test_exchange_status_with_shards() -> None:
    status = parse.parse_exchange_status(
        {
            "exchange_active": True,
            "trading_active": False,
            "exchange_estimated_resume_time": "2026-11-26T10:00:00Z",
            "exchange_index_statuses": [{"exchange_index": 2, "exchange_active": True, "trading_active": False}],
        }
    )
    assert (status.exchange_active, status.trading_active) == (True, False)
    assert status.estimated_resume_us == 1_795_687_200_000_000
    assert [(shard.exchange_index, shard.trading_active) for shard in status.shards] == [(2, False)]


@pytest.mark.parametrize("odd", [{"a": 1}, [], 5, True, "tomorrow", "9" * 40])
def test_fields_that_only_describe_may_have_any_shape(odd: object) -> None:
    for name in set(MARKET) - {"ticker", "status"}:
        unfit: list[str] = []
        market = parse.parse_market({**MARKET, name: odd}, unfit.append)
        assert (market.ticker, market.status) == (MARKET["ticker"], parse.parse_market(MARKET).status)
        assert json.loads(market.payload)[name] == odd
        assert set(unfit) <= {name}
    assert parse.parse_market({**MARKET, "open_time": "tomorrow"}).open_time_us is None
    series: list[str] = []
    assert parse.parse_series({"ticker": "A", "fee_multiplier": odd, "title": 7}, series.append).ticker == "A"
    assert "title" in series


@pytest.mark.parametrize(
    ("call", "obj"),
    [
        (parse.parse_market, None),
        (parse.parse_market, {"status": "active"}),
        (parse.parse_market, {"ticker": "A"}),
        (parse.parse_event, []),
        (parse.parse_series, {"ticker": 5}),
        (lambda obj: parse.parse_rest_book("A", obj), {}),
        (lambda obj: parse.parse_rest_book("A", obj), {"orderbook_fp": {"yes_dollars": [["2", "1"]]}}),
        (lambda obj: parse.parse_rest_trade(obj, 1), {"trade_id": "t", "ticker": "A", "created_time": ""}),
        (parse.parse_exchange_status, {"exchange_active": "yes"}),
        (parse.parse_candlesticks, {"candlesticks": [{}]}),
        (parse.parse_account_limits, {"read": {"refill_rate": 0, "bucket_capacity": 1}}),
    ],
)
def test_objects_of_unknown_shape_are_unparsable(call: Any, obj: Any) -> None:
    with pytest.raises(UnparsableMessage):
        call(obj)


def _all(call: Any, objects: list[Any]) -> int:
    return len([call(obj) for obj in objects])


RECORDED: dict[str, Any] = {
    "candlesticks_batch": (lambda r: len(parse.parse_candlesticks(r)), 90),
    "event_single": (lambda r: _all(parse.parse_event, [r["event"]]) + _all(parse.parse_market, r["markets"]), 2),
    "events_list": (lambda r: _all(parse.parse_event, r["events"]), 5),
    "events_multivariate_list": (lambda r: _all(parse.parse_event, r["events"]), 5),
    "exchange_schedule": (lambda r: len(parse.parse_schedule(r).standard_hours[0].weekdays[3]), 2),
    "exchange_status": (lambda r: int(parse.parse_exchange_status(r).exchange_active), 1),
    "market_single": (lambda r: _all(parse.parse_market, [r["market"]]), 1),
    "markets_list": (lambda r: _all(parse.parse_market, r["markets"]), 5),
    "orderbook": (lambda r: parse.parse_rest_book("A", r), ((), ())),
    "series_list": (lambda r: _all(parse.parse_series, r["series"]), 241),
    "series_single": (lambda r: parse.parse_series(r["series"]).ticker, "CO2"),
    "trades_list": (lambda r: _all(lambda obj: parse.parse_rest_trade(obj, 1), r["trades"]), 5),
}


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_production_answers_parse(name: str) -> None:
    path = recording(REST_ANSWERS / f"{name}.json")
    call, expected = RECORDED[name]
    assert call(json.loads(path.read_text())["response"]) == expected


def test_every_recorded_answer_has_a_case() -> None:
    assert {path.stem for path in recording(REST_ANSWERS).glob("*.json")} == set(RECORDED)


TRADE = {"trade_id": "t", "ticker": "A", "created_time": "2026-11-22T16:00:00Z", "yes_price": 5, "count": 1}


@pytest.mark.parametrize("text", ["T" * 201, "A\x00", "A\n"])
def test_an_object_with_an_invalid_name_is_refused(text: str) -> None:
    objects: list[tuple[Callable[[Any], object], dict[str, Any], tuple[str, ...]]] = [
        (parse.parse_market, MARKET, ("ticker", "status")),
        (parse.parse_event, {"event_ticker": "A", "series_ticker": "S"}, ("event_ticker",)),
        (parse.parse_series, {"ticker": "A"}, ("ticker",)),
        (lambda obj: parse.parse_rest_trade(obj, 1), TRADE, ("ticker", "trade_id")),
    ]
    for read, obj, fields in objects:
        read(obj)
        for field in fields:
            with pytest.raises(UnparsableMessage) as caught:
                read({**obj, field: text})
            assert caught.value.reason == "name"
    unfit: list[str] = []
    assert parse.parse_market({**MARKET, "event_ticker": text, "series_ticker": text}, unfit.append).event_ticker == ""
    assert parse.parse_event({"event_ticker": "A", "series_ticker": text}, unfit.append).series_ticker is None
    assert unfit == ["event_ticker", "series_ticker", "series_ticker"]
