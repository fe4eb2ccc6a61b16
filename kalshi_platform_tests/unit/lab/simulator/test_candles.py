from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.lab.simulator.engine.book import NO, YES, BookViolation
from kalshi_platform.lab.simulator.engine.candles import candles, historical
from kalshi_platform.lab.simulator.engine.universe import Market
from kalshi_platform.lab.simulator.engine.venue import Venue
from kalshi_platform_tests.unit.lab.simulator.helpers import small_venue

MINUTE_S = 60
E = 1_795_377_600
"""A whole UTC hour, in seconds."""


def quiet_market() -> tuple[Venue, Market]:
    venue, _, _ = small_venue(10)
    market = venue.quoting[0]
    for side in (YES, NO):
        market.book.replace(side, {})
    return venue, market


def us(second: float) -> int:
    return round((E + second) * 1_000_000)


def of(market: Market, period_min: int = 1, **more: Any) -> list[dict[str, Any]]:
    return candles(market, start_s=E - 7_200, end_s=E + 7_200, period_min=period_min, **more)


def test_a_trade_of_the_last_microsecond_of_a_period_is_in_it_and_the_next_one_is_not() -> None:
    venue, market = quiet_market()
    venue.print_trade(market, us(0), yes_price_e4=4_000, count_e2=100, taker_side=YES)
    venue.print_trade(market, us(0) + 1, yes_price_e4=5_000, count_e2=300, taker_side=YES)
    first, second = of(market)
    assert (first["end_period_ts"], first["price"]["close_dollars"], first["volume_fp"]) == (E, "0.4000", "1.00")
    assert (second["end_period_ts"], second["price"]["open_dollars"]) == (E + 60, "0.5000")
    assert second["price"]["previous_dollars"] == "0.4000"
    assert "previous_dollars" not in first["price"]
    [hour, later] = of(market, 60)
    assert (hour["end_period_ts"], later["end_period_ts"]) == (E, E + 3_600)


def test_a_period_without_a_trade_lacks_the_keys_of_prices() -> None:
    venue, market = quiet_market()
    venue.change(market, us(1), YES, 4_000, 500)
    [candle] = of(market)
    assert candle["price"] == {}
    assert candle["volume_fp"] == "0.00"
    venue.print_trade(market, us(2), yes_price_e4=4_000, count_e2=100, taker_side=NO)
    venue.change(market, us(62), YES, 4_000, -500)
    assert of(market)[1]["price"] == {"previous_dollars": "0.4000"}


def test_quotes_of_an_empty_side_are_nought_and_a_dollar_and_open_with_what_was_in_force() -> None:
    venue, market = quiet_market()
    venue.change(market, us(1), YES, 4_000, 500)
    venue.change(market, us(61), NO, 5_000, 500)
    venue.change(market, us(62), YES, 4_000, -500)
    first, second = of(market)
    assert first["yes_bid"] == {
        "open_dollars": "0.0000", "low_dollars": "0.0000", "high_dollars": "0.4000", "close_dollars": "0.4000",
    }  # fmt: skip
    assert set(first["yes_ask"].values()) == {"1.0000"}
    assert second["yes_bid"]["open_dollars"] == "0.4000"
    assert second["yes_bid"]["close_dollars"] == "0.0000"
    assert second["yes_ask"] == {
        "open_dollars": "1.0000", "low_dollars": "0.5000", "high_dollars": "1.0000", "close_dollars": "0.5000",
    }  # fmt: skip


def test_quotes_within_one_microsecond_are_never_seen() -> None:
    venue, market = quiet_market()
    for price, delta in ((4_000, 500), (6_000, 100), (6_000, -100), (4_000, -200)):
        venue.change(market, us(1), YES, price, delta)
    assert of(market)[0]["yes_bid"]["high_dollars"] == "0.4000"


def test_a_quiet_period_has_no_candle_and_a_changed_size_makes_one() -> None:
    venue, market = quiet_market()
    venue.change(market, us(1), YES, 4_000, 500)
    venue.change(market, us(181), YES, 4_000, 100)
    assert [candle["end_period_ts"] for candle in of(market)] == [E + 60, E + 240]
    assert set(of(market)[1]["yes_bid"].values()) == {"0.4000"}


def test_a_change_that_is_refused_leaves_no_candle() -> None:
    venue, market = quiet_market()
    with pytest.raises(BookViolation):
        venue.change(market, us(1), YES, 4_000, -500)
    assert of(market) == []


def test_the_mean_is_weighted_by_contracts_and_rounded_half_up() -> None:
    venue, market = quiet_market()
    for price, count in ((5_700, 100), (5_701, 100), (9_000, 0)):
        if count:
            venue.print_trade(market, us(1), yes_price_e4=price, count_e2=count, taker_side=YES)
    assert of(market)[0]["price"]["mean_dollars"] == "0.5701"


def test_block_trades_count_as_trades_do() -> None:
    venue, market = quiet_market()
    venue.print_trade(market, us(1), yes_price_e4=7_000, count_e2=100, taker_side=YES, block=True)
    [candle] = of(market)
    assert (candle["price"]["close_dollars"], candle["volume_fp"]) == ("0.7000", "1.00")


def test_the_candle_before_the_start_is_dated_to_the_first_end_after_it() -> None:
    venue, market = quiet_market()
    venue.print_trade(market, us(1), yes_price_e4=7_000, count_e2=100, taker_side=YES)
    [before] = candles(market, start_s=E + 600, end_s=E + 900, period_min=1, with_latest_before=True)
    assert before["end_period_ts"] == E + 660
    assert before["price"] == {"previous_dollars": "0.7000"}
    assert candles(market, start_s=E + 600, end_s=E + 900, period_min=1) == []


def test_historical_candles_have_plain_names() -> None:
    venue, market = quiet_market()
    venue.print_trade(market, us(1), yes_price_e4=7_000, count_e2=100, taker_side=YES)
    plain = historical(of(market)[0])
    assert set(plain) == {"end_period_ts", "yes_bid", "yes_ask", "price", "volume", "open_interest"}
    assert set(plain["price"]) == {"open", "low", "high", "close", "mean"}


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), period_min=st.sampled_from([1, 60, 1_440]))
def test_candles_are_those_of_a_slow_replay_of_everything_published(seed: int, period_min: int) -> None:
    venue, activity, sink = small_venue(4, seed)
    books = {market.ticker: [dict(market.book.levels[side]) for side in (YES, NO)] for market in venue.market_list}
    activity.run(us(-170), us(170), 400)
    wanted = _slow_candles(sink, books, period_min * 60 * 1_000_000)
    for market in venue.quoting:
        found = {
            candle["end_period_ts"]: [
                *(candle[side][name] for side in ("yes_bid", "yes_ask") for name in NAMES),
                candle["price"].get("close_dollars"),
            ]
            for candle in candles(market, start_s=E - 86_400, end_s=E + 86_400, period_min=period_min)
        }
        assert found == wanted[market.ticker]


NAMES = ("open_dollars", "high_dollars", "low_dollars", "close_dollars")


def _slow_candles(sink: Any, books: Any, period_us: int) -> dict[str, dict[int, list[str | None]]]:
    """Message by message, the way of the words: one list of quotes a period."""
    quotes: dict[str, dict[int, list[tuple[int, int]]]] = defaultdict(dict)
    closes: dict[tuple[str, int], int] = {}
    messages = [each for each in sink.published if each[0] in ("delta", "trade")]
    for place, (kind, ticker, when, *rest) in enumerate(messages):
        end = -(-when // period_us) * period_us // 1_000_000
        listed = quotes[ticker].setdefault(end, [_quote(books[ticker])])
        if kind == "trade":
            closes[ticker, end] = rest[0].yes_price_e4
        else:
            side, price, delta = rest
            books[ticker][side][price] = books[ticker][side].get(price, 0) + delta
        if not any(later[1] == ticker and later[2] == when for later in messages[place + 1 : place + 20]):
            listed.append(_quote(books[ticker]))
    return {
        ticker: {
            end: [
                *(_text(price) for side in zip(*listed, strict=True) for price in _open_high_low_close(side)),
                _text(closes[ticker, end]) if (ticker, end) in closes else None,
            ]
            for end, listed in periods.items()
        }
        for ticker, periods in quotes.items()
    } | {ticker: {} for ticker in books.keys() - quotes.keys()}


def _open_high_low_close(prices: tuple[int, ...]) -> tuple[int, ...]:
    return prices[0], max(prices), min(prices), prices[-1]


def _quote(book: Any) -> tuple[int, int]:
    yes, no = (max((price for price, size in side.items() if size), default=0) for side in book)
    return yes, 10_000 - no


def _text(price_e4: int) -> str:
    return f"{price_e4 / 10_000:.4f}"
