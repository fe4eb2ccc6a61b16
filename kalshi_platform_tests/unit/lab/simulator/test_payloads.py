from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.lab.simulator.engine import payloads
from kalshi_platform.lab.simulator.engine.universe import Trade
from kalshi_platform_tests.unit.lab.simulator.helpers import START_US, small_venue


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (1_786_085_188_978_710, "2026-08-07T06:46:28.97871Z"),
        (1_786_085_189_069_549, "2026-08-07T06:46:29.069549Z"),
        (1_786_085_189_000_000, "2026-08-07T06:46:29Z"),
        (1_786_085_189_000_001, "2026-08-07T06:46:29.000001Z"),
    ],
)
def test_time_text_trims_trailing_zeros(us: int, text: str) -> None:
    assert payloads.time_text(us) == text


@given(st.integers(-(10**12), 10**12))
def test_count_text_is_exact(count_e2: int) -> None:
    text = payloads.count_text(count_e2)
    assert int(text.replace(".", "")) == count_e2
    assert text[-3] == "."


def test_delta_has_the_current_shape() -> None:
    venue, _, _ = small_venue()
    market = venue.quoting[0]
    body = json.loads(payloads.delta(market, START_US + 120_340, 1, 4_200, -313))
    assert body == {
        "market_ticker": market.ticker,
        "market_id": market.market_id,
        "price_dollars": "0.4200",
        "delta_fp": "-3.13",
        "side": "no",
        "ts": payloads.time_text(START_US + 120_340),
        "ts_ms": (START_US + 120_340) // 1_000,
    }


def test_yes_scale_flips_the_no_side_only() -> None:
    market = small_venue()[0].quoting[0]
    market.book.replace(0, {4_000: 100})
    market.book.replace(1, {4_200: 100})
    snapshot = json.loads(payloads.snapshot(market, use_yes_price=True))
    assert snapshot["yes_dollars_fp"] == [["0.4000", "1.00"]]
    assert snapshot["no_dollars_fp"] == [["0.5800", "1.00"]]
    assert json.loads(payloads.delta(market, 1, 1, 4_200, 1, use_yes_price=True))["price_dollars"] == "0.5800"
    assert json.loads(payloads.delta(market, 1, 0, 4_200, 1, use_yes_price=True))["price_dollars"] == "0.4200"


def test_the_key_of_an_empty_side_is_absent() -> None:
    market = small_venue()[0].quoting[0]
    market.book.replace(0, {4_000: 100})
    market.book.replace(1, {})
    assert set(json.loads(payloads.snapshot(market))) == {"market_ticker", "market_id", "yes_dollars_fp"}
    market.book.replace(0, {})
    assert set(json.loads(payloads.snapshot(market))) == {"market_ticker", "market_id"}


def test_ticker_before_the_first_trade_has_price_zero_and_all_members() -> None:
    market = small_venue()[0].quoting[0]
    body = json.loads(payloads.ticker(market, START_US))
    assert body["price_dollars"] == "0.0000"
    assert set(body) == {
        "market_id", "market_ticker", "price_dollars", "yes_bid_dollars", "yes_ask_dollars", "volume_fp",
        "open_interest_fp", "dollar_volume", "dollar_open_interest", "yes_bid_size_fp", "yes_ask_size_fp",
        "last_trade_size_fp", "ts", "ts_ms", "time",
    }  # fmt: skip
    assert isinstance(body["dollar_volume"], int)


def test_trade_sides_agree() -> None:
    body = json.loads(payloads.trade(Trade(START_US, "id", "T", 5_700, 1_250, 1)))
    assert (body["taker_side"], body["taker_outcome_side"], body["taker_book_side"]) == ("no", "no", "ask")
    assert (body["yes_price_dollars"], body["no_price_dollars"], body["count_fp"]) == ("0.5700", "0.4300", "12.50")
    assert body["is_block_trade"] is False
