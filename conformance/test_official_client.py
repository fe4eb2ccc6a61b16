"""Kalshi's own generated REST client: every answer must pass its strict models (enums, required members, types)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kalshi_python_sync as kalshi
import pytest
from conftest import Simulator, eventually
from kalshi_python_sync.exceptions import NotFoundException, UnauthorizedException

Note = Callable[[str], None]
FOREVER_S = 1 << 33


class Official:
    """The client's API objects over one connection pool."""

    def __init__(self, simulator: Simulator, *, signed: bool) -> None:
        client = kalshi.ApiClient(kalshi.Configuration(host=simulator.rest_url))
        if signed:
            # 3.34's own `set_kalshi_auth` names a class that it does not import.
            client.kalshi_auth = kalshi.KalshiAuth(
                simulator.key_id, Path(simulator.key_file).read_text(encoding="ascii")
            )
        self.account = kalshi.AccountApi(client)
        self.events = kalshi.EventsApi(client)
        self.exchange = kalshi.ExchangeApi(client)
        self.historical = kalshi.HistoricalApi(client)
        self.market = kalshi.MarketApi(client)

    def all_markets(self, **filters: Any) -> list[Any]:
        """Return the markets of all pages."""
        found: list[Any] = []
        cursor = None
        while True:
            page = self.market.get_markets(cursor=cursor, **filters)
            found += page.markets
            cursor = page.cursor
            if not cursor:
                return found


@pytest.fixture(scope="module")
def official(simulator: Simulator) -> Official:
    return Official(simulator, signed=False)


@pytest.fixture(scope="module")
def signed(simulator: Simulator) -> Official:
    return Official(simulator, signed=True)


@pytest.fixture(scope="module")
def traded(simulator: Simulator, official: Official) -> Any:
    """A market that was traded."""
    trades = eventually(lambda: official.market.get_trades(limit=10).trades, within_s=30, what="a trade")
    return official.market.get_market(trades[-1].ticker).market


def test_status_and_schedule(official: Official) -> None:
    status = official.exchange.get_exchange_status()
    assert status.exchange_active
    assert status.trading_active
    assert status.exchange_index_statuses[0].exchange_index == 0
    schedule = official.exchange.get_exchange_schedule().schedule
    assert len(schedule.standard_hours[0].thursday) == 2


def test_status_of_a_closed_exchange(simulator: Simulator, official: Official) -> None:
    simulator.control("/faults", kind="exchange_inactive", seconds=1)
    status = official.exchange.get_exchange_status()
    assert not status.exchange_active
    assert status.exchange_estimated_resume_time is not None
    eventually(lambda: official.exchange.get_exchange_status().exchange_active, within_s=10, what="the resumption")


def test_series(official: Official, note: Note) -> None:
    listing = official.market.get_series_list(include_volume=True, include_product_metadata=True).series
    assert len(listing) > 5
    one = official.market.get_series(listing[0].ticker).series
    assert one.ticker == listing[0].ticker
    some = official.market.get_series_list(category=one.category).series
    assert {each.category for each in some} == {one.category}
    assert official.market.get_series_list(min_updated_ts=FOREVER_S).series == []
    note(f"official client: {len(listing)} series")


def test_events(official: Official, note: Note) -> None:
    events: list[Any] = []
    cursor = None
    while True:
        page = official.events.get_events(limit=7, cursor=cursor, with_nested_markets=True, with_milestones=True)
        events += page.events
        cursor = page.cursor
        if not cursor:
            break
    assert len({event.event_ticker for event in events}) == len(events) > 7
    assert all(event.mutually_exclusive == (event.collateral_return_type == "MECNET") for event in events)
    one = official.events.get_event(events[0].event_ticker, with_nested_markets=True).event
    assert {market.event_ticker for market in one.markets} == {one.event_ticker}
    assert official.events.get_event(one.event_ticker).markets
    opened = official.events.get_events(status="open", series_ticker=one.series_ticker).events
    assert {event.series_ticker for event in opened} == {one.series_ticker}
    combos = official.events.get_multivariate_events(with_nested_markets=True).events
    assert all(event.event_ticker.startswith("KXMVE") for event in combos)
    assert not any(event.event_ticker.startswith("KXMVE") for event in events)
    note(f"official client: {len(events)} events, {len(combos)} combo event(s), with nested markets")


def test_markets_paging_and_filters(official: Official, note: Note) -> None:
    everything = official.all_markets(limit=11)
    assert len({market.ticker for market in everything}) == len(everything) > 60
    opened = official.all_markets(status="open", mve_filter="exclude")
    assert {market.status for market in opened} <= {"active", "inactive"}
    settled = official.all_markets(status="settled")
    assert {market.status for market in settled} == {"finalized"}
    assert all(market.settlement_value_dollars and market.settlement_ts for market in settled)
    combos = official.all_markets(mve_filter="only")
    assert all(market.mve_collection_ticker and market.mve_selected_legs for market in combos)
    few = [market.ticker for market in opened[:3]]
    assert {market.ticker for market in official.all_markets(tickers=",".join(few))} == set(few)
    event = opened[0].event_ticker
    assert {market.event_ticker for market in official.all_markets(event_ticker=event)} == {event}
    series = event.split("-")[0]
    assert all(market.ticker.startswith(series) for market in official.all_markets(series_ticker=series))
    now = int(time.time())
    assert official.all_markets(min_created_ts=now + 60) == []
    assert len(official.all_markets(min_close_ts=now, max_close_ts=FOREVER_S)) >= 60
    assert official.all_markets(min_settled_ts=now - 3 * 86_400, max_settled_ts=now, status="settled")
    assert official.all_markets(min_updated_ts=now - 3 * 86_400, mve_filter="exclude")
    with pytest.raises(kalshi.ApiException) as refusal:
        official.market.get_markets(min_close_ts=now, status="open")
    assert refusal.value.status == 400
    note(f"official client: {len(everything)} markets over {-(-len(everything) // 11)} pages, all filters")


def test_single_market_and_one_that_is_not_there(official: Official, traded: Any) -> None:
    assert official.market.get_market(traded.ticker).market.ticker == traded.ticker
    with pytest.raises(NotFoundException):
        official.market.get_market("KXNOSUCH-26NOV23-T1.00")


def test_books_single_and_batch(simulator: Simulator, official: Official, note: Note) -> None:
    tickers = simulator.open_tickers()[:100]
    simulator.control("/rate", rate=0)
    try:
        batch = {each.ticker: each.orderbook_fp for each in official.market.get_market_orderbooks(tickers).orderbooks}
        assert set(batch) == set(tickers)
        exact = 0
        for ticker in tickers[:25]:
            one = official.market.get_market_orderbook(ticker).orderbook_fp
            sides = {"yes": dict(map(tuple, one.yes_dollars)), "no": dict(map(tuple, one.no_dollars))}
            assert sides == simulator.book(ticker)
            assert (one.yes_dollars, one.no_dollars) == (batch[ticker].yes_dollars, batch[ticker].no_dollars)
            exact += bool(one.yes_dollars or one.no_dollars)
            shallow = official.market.get_market_orderbook(ticker, depth=1).orderbook_fp
            assert shallow.yes_dollars == one.yes_dollars[-1:]
    finally:
        simulator.control("/rate", rate=300)
    assert exact > 10
    note(f"official client: {len(batch)} books in a batch, 25 single ones equal to the exchange's own")


def test_trades(official: Official, traded: Any, note: Note) -> None:
    eventually(lambda: len(official.market.get_trades(limit=100).trades) > 20, within_s=60, what="20 trades")
    now = int(time.time())
    found: list[Any] = []
    cursor = None
    while True:
        page = official.market.get_trades(limit=7, cursor=cursor, max_ts=now + 1, min_ts=now - 3_600)
        found += page.trades
        cursor = page.cursor
        if not cursor:
            break
    assert len({trade.trade_id for trade in found}) == len(found) > 20
    times = [trade.created_time for trade in found]
    assert times == sorted(times, reverse=True)
    own = official.market.get_trades(ticker=traded.ticker, is_block_trade=False).trades
    assert {trade.ticker for trade in own} == {traded.ticker}
    assert {trade.is_block_trade for trade in own} == {False}
    note(f"official client: {len(found)} trades over {-(-len(found) // 7)} pages")


def test_candlesticks(official: Official, traded: Any, note: Note) -> None:
    series = official.events.get_event(traded.event_ticker).event.series_ticker
    now = int(time.time())
    window = {"start_ts": now - 3_600, "end_ts": now + 120}
    one = official.market.get_market_candlesticks(series, traded.ticker, period_interval=1, **window)
    assert one.ticker == traded.ticker
    assert one.candlesticks
    assert any(candle.price.close_dollars for candle in one.candlesticks)
    late = {"start_ts": now + 60, "end_ts": now + 120}
    earlier = official.market.get_market_candlesticks(
        series, traded.ticker, period_interval=1, include_latest_before_start=True, **late
    )
    assert earlier.candlesticks[0].price.previous_dollars
    batch = official.market.batch_get_market_candlesticks(traded.ticker, period_interval=60, **window).markets
    assert [each.market_ticker for each in batch] == [traded.ticker]
    event = official.events.get_market_candlesticks_by_event(traded.event_ticker, series, period_interval=1, **window)
    assert traded.ticker in event.market_tickers
    assert len(event.market_candlesticks) == len(event.market_tickers)
    note(f"official client: candlesticks of one market ({len(one.candlesticks)}), of a batch and of an event")


def test_historical_tier(official: Official, note: Note) -> None:
    cutoff = official.historical.get_historical_cutoff()
    markets = official.historical.get_historical_markets(limit=1_000).markets
    assert markets
    assert all(market.settlement_ts < cutoff.market_settled_ts for market in markets)
    one = official.historical.get_historical_market(markets[0].ticker).market
    assert one.status == "finalized"
    with pytest.raises(NotFoundException):
        official.market.get_market(one.ticker)
    trades = official.historical.get_trades_historical(ticker=one.ticker, limit=1_000).trades
    assert trades
    first = int(min(trade.created_time for trade in trades).timestamp())
    candles = official.historical.get_market_candlesticks_historical(
        one.ticker, start_ts=first - 3_600, end_ts=first + 7_200, period_interval=60
    ).candlesticks
    assert candles[0].price.open
    note(f"official client: {len(markets)} historical markets, {len(trades)} trades, {len(candles)} candlesticks")


def test_account(official: Official, signed: Official) -> None:
    limits = signed.account.get_account_api_limits()
    assert limits.read.refill_rate == 200
    assert signed.account.get_account_endpoint_costs().default_cost == 10
    assert official.account.get_account_endpoint_costs().endpoint_costs == []
    with pytest.raises(UnauthorizedException):
        official.account.get_account_api_limits()


def test_fee_changes(official: Official) -> None:
    assert official.exchange.get_series_fee_changes().series_fee_change_arr is not None
    assert official.events.get_event_fee_changes().event_fee_changes is not None


def test_an_exhausted_budget_is_429(simulator: Simulator, official: Official) -> None:
    simulator.control("/faults", kind="rest_status", status=429, path="/exchange/status", count=1)
    with pytest.raises(kalshi.ApiException) as refusal:
        official.exchange.get_exchange_status()
    assert refusal.value.status == 429
    assert "Retry-After" not in refusal.value.headers
    assert "too many requests" in refusal.value.body


def test_markets_in_every_state_of_their_lives(simulator: Simulator, official: Official, note: Note) -> None:
    """Follow the scenario until every status that the clock brings forth has passed the strict models."""
    seen: set[str] = set()
    wanted = {"initialized", "active", "inactive", "closed", "determined", "finalized"}

    def look() -> bool:
        seen.update(market.status for market in official.all_markets(limit=1_000))
        return wanted <= seen

    simulator.control("/markets", action="create", open_in_s=30, close_in_s=3_600, visible_in_s=0)
    ticker = simulator.control("/markets", action="create", close_in_s=3_600, visible_in_s=0)["ticker"]
    for action, more in (("deactivate", {}), ("close", {}), ("determine", {"result": "yes"})):
        simulator.control("/markets", action=action, ticker=ticker, **more)
        look()
    simulator.control("/markets", action="dispute", ticker=ticker)
    look()
    simulator.control("/markets", action="determine", ticker=ticker, result="scalar", settlement_e4=3_700)
    look()
    simulator.control("/markets", action="settle", ticker=ticker)
    market = official.market.get_market(ticker).market
    assert (market.result, market.settlement_value_dollars, market.market_type) == ("scalar", "0.3700", "scalar")
    eventually(look, within_s=30, what=f"every status (seen {sorted(seen)})")
    assert {"disputed", "amended"} <= seen
    note(f"official client: markets with status {', '.join(sorted(seen))}")
