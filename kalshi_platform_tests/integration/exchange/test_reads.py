"""Every read of the REST client against the simulated exchange, and answers that only a scripted server gives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import (
    AuthenticationFailed,
    ExchangeUnavailable,
    InvalidQuery,
    RateLimited,
    RequestRejected,
)
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform_tests.fixtures.exchange import running_exchange
from kalshi_platform_tests.fixtures.gatherer_service import client_settings


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with running_exchange(tmp_path_factory.mktemp("exchange"), markets=24, rate=400, combos=2) as running:
        yield running


@pytest.fixture
def client(exchange: ServerThread) -> RestClient:
    return RestClient(client_settings(exchange), SYSTEM_CLOCK)


def test_every_filter_of_markets_narrows(client: RestClient) -> None:
    every = {market.ticker: market for market in client.iter_markets(mve_filter=None)}
    combos = {market.ticker for market in client.iter_markets(mve_filter="only")}
    assert combos
    assert all(ticker.startswith("KXMVE") for ticker in combos)
    assert {market.ticker for market in client.iter_markets()} == set(every) - combos
    one = next(market for market in every.values() if market.status == "active" and market.ticker not in combos)
    by_event = {market.ticker for market in client.iter_markets(event_ticker=one.event_ticker)}
    assert by_event == {ticker for ticker, market in every.items() if market.event_ticker == one.event_ticker}
    series = one.event_ticker.partition("-")[0]
    assert one.ticker in {market.ticker for market in client.iter_markets(series_ticker=series)}
    assert [market.ticker for market in client.iter_markets(tickers=[one.ticker])] == [one.ticker]
    assert one.created_us is not None
    created_s = one.created_us // 1_000_000
    found = {
        market.ticker for market in client.iter_markets("open", min_created_ts=created_s, max_created_ts=created_s)
    }
    assert one.ticker in found
    assert one.ticker not in {market.ticker for market in client.iter_markets(min_created_ts=created_s + 86_400)}
    settled = list(client.iter_markets("settled", min_settled_ts=0))
    assert {market.status for market in settled} == {"finalized"}


def test_a_refused_combination_never_leaves_the_client(exchange: ServerThread, client: RestClient) -> None:
    with pytest.raises(InvalidQuery):
        client.iter_markets("open", min_updated_ts=1)
    with running_exchange(exchange.key_file.parent, markets=1, rate=0, key_file=exchange.key_file) as other:
        stopped = client_settings(other)
    with pytest.raises(InvalidQuery):  # nobody listens there any more: it was not even tried
        RestClient(stopped, SYSTEM_CLOCK).iter_markets("closed", min_settled_ts=1)


def test_series_and_events_by_their_filters(client: RestClient) -> None:
    series = list(client.iter_series())
    category = series[0].category
    assert {each.ticker for each in client.iter_series(category, include_volume=True)} == {
        each.ticker for each in series if each.category == category
    }
    events = {event.event_ticker for event in client.iter_events()}
    combos = {event.event_ticker for event in client.iter_multivariate_events()}
    assert combos
    assert not combos & events
    some = sorted(events)[:2]
    assert sorted(event.event_ticker for event in client.iter_events(tickers=some)) == some
    combo = client.event(min(combos))
    assert combo.series_ticker is not None
    narrowed = client.iter_multivariate_events(series_ticker=combo.series_ticker)
    assert combo.event_ticker in {event.event_ticker for event in narrowed}


def test_candles_of_one_market_and_of_many_are_the_same(exchange: ServerThread, client: RestClient) -> None:
    ticker = exchange.tickers()[0]
    now_s = SYSTEM_CLOCK.now_ns() // 10**9
    span = (now_s - 3_600, now_s, 1)
    one = client.market_candlesticks(ticker.partition("-")[0], ticker, *span)
    many = client.candlesticks([ticker, exchange.tickers()[1]], *span)
    # The running minute changes between the two answers.
    assert one[:-1] == [candle for candle in many if candle.ticker == ticker][: len(one) - 1]
    assert {candle.ticker for candle in many} <= {ticker, exchange.tickers()[1]}


def test_the_historical_tier_has_what_the_live_one_has_not(client: RestClient) -> None:
    cutoff = client.historical_cutoff()
    old = list(client.iter_historical_markets())
    assert old
    assert all(market.settlement_ts_us and market.settlement_ts_us < cutoff.market_settled_us for market in old)
    assert client.historical_market(old[0].ticker).ticker == old[0].ticker
    with pytest.raises(RequestRejected) as caught:
        client.historical_market("KXNO-SUCH")
    assert caught.value.status == 404
    assert not {market.ticker for market in old} & {market.ticker for market in client.iter_markets(mve_filter=None)}
    close_s = (old[0].close_time_us or 0) // 10**6
    candles = client.historical_candlesticks(old[0].ticker, close_s - 86_400, close_s, 60)
    assert all(candle.ticker == old[0].ticker for candle in candles)


def test_trades_of_both_tiers_come_once_each(exchange: ServerThread, client: RestClient) -> None:
    exchange.publish(
        {"kind": "trade", "ticker": exchange.tickers()[0], "yes_price_e4": 4200, "count_e2": 100},
        {"kind": "trade", "ticker": exchange.tickers()[0], "yes_price_e4": 4200, "count_e2": 100},
    )
    exchange.rate(0)
    cutoff_us = client.historical_cutoff().trades_created_us
    live = [trade.trade_id for trade in client.iter_trades()]
    old = [trade.trade_id for trade in client.iter_historical_trades()]
    both = [trade.trade_id for trade in client.iter_trades_of_both_tiers()]
    assert live
    assert old
    assert len(both) == len(set(both))
    assert set(both) == set(live) | set(old)
    cutoff_s = cutoff_us // 10**6
    assert [t.trade_id for t in client.iter_trades_of_both_tiers(min_ts=cutoff_s + 1)] == live
    assert [t.trade_id for t in client.iter_trades_of_both_tiers(max_ts=cutoff_s - 1)] == old


def test_costs_of_requests_and_a_budget_shared_by_clients(exchange: ServerThread) -> None:
    settings = client_settings(exchange, reads_per_second=50.0)
    first, second = RestClient(settings, SYSTEM_CLOCK), RestClient(settings, SYSTEM_CLOCK)
    assert first.endpoint_costs().default_cost == 10
    before = second.read_budget()
    first.exchange_schedule()
    assert second.read_budget() < before + 0.9


# -- a server by hand


class Script:
    """Answers by path: a list of (status, body), used up one by one; the last one stays. Keeps what was asked."""

    def __init__(self, **answers: list[tuple[int, Any]]) -> None:
        self.answers = {"/" + path.replace("__", "/"): list(each) for path, each in answers.items()}
        self.asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        self.lock = threading.Lock()

    def take(self, target: str, headers: dict[str, str]) -> tuple[int, Any]:
        parts = urlsplit(target)
        with self.lock:
            self.asked.append((parts.path, parse_qs(parts.query), headers))
            waiting = self.answers[parts.path]
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]


@contextmanager
def scripted(script: Script, **changes: Any) -> Iterator[RestClient]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = script.take(self.path, dict(self.headers.items()))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    settings = {"retry_base_s": 0.01, "retry_cap_s": 0.02, "reads_per_second": 1_000.0, "max_attempts": 3, **changes}
    try:
        yield RestClient(ExchangeSettings(rest_url=f"http://127.0.0.1:{server.server_port}", **settings), SYSTEM_CLOCK)
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


@pytest.mark.parametrize(
    "body",
    [
        {"code": "bad_thing", "message": "no such filter", "details": ""},
        {"error": {"code": "bad_thing", "message": "no such filter"}},
    ],
)
def test_flat_and_wrapped_error_bodies_are_one_error(body: Any) -> None:
    script = Script(events=[(400, body)])
    with scripted(script) as client, pytest.raises(RequestRejected, match="no such filter") as caught:
        list(client.iter_events())
    assert (caught.value.status, caught.value.code) == (400, "bad_thing")
    assert len(script.asked) == 1, "a permanent error is not repeated"


@pytest.mark.parametrize(
    ("status", "body", "kind", "attempts"),
    [
        (429, {"error": "too many requests"}, RateLimited, 3),
        (500, {"code": "internal", "message": "", "details": "x"}, ExchangeUnavailable, 3),
        (502, b"<html>bad gateway</html>", ExchangeUnavailable, 3),
        (408, b"", ExchangeUnavailable, 3),
        (200, b"<html>a captive portal</html>", ExchangeUnavailable, 3),
        (401, {"error": {"code": "unauthorized", "message": "m"}}, AuthenticationFailed, 1),
        (403, {"error": "forbidden"}, AuthenticationFailed, 1),
        (404, b"", RequestRejected, 1),
        (302, b"", RequestRejected, 1),
        (400, b"[" * 100_000, RequestRejected, 1),
    ],
)
def test_transient_or_permanent_is_decided_by_the_answer(
    status: int, body: Any, kind: type[Exception], attempts: int
) -> None:
    script = Script(events=[(status, body)])
    with scripted(script) as client, pytest.raises(kind) as caught:
        list(client.iter_events())
    assert type(caught.value) is kind
    assert len(script.asked) == attempts


def test_lists_are_sent_as_the_exchange_reads_them() -> None:
    script = Script(
        markets=[(200, {"markets": []})],
        markets__orderbooks=[(200, {"orderbooks": []})],
        markets__candlesticks=[(200, {"markets": []})],
    )
    with scripted(script) as client:
        assert list(client.iter_markets(tickers=["A", "B"])) == []
        assert client.books(["A", "B"]).books == {}
        assert client.candlesticks(["A", "B"], 0, 60, 1) == []
    assert [query.get("tickers", query.get("market_tickers")) for _, query, _ in script.asked] == [
        ["A,B"], ["A", "B"], ["A,B"]
    ]  # fmt: skip
    assert not [name for _, _, headers in script.asked for name in headers if name.startswith("KALSHI")]


def trade(trade_id: str, second: int, fraction: str = "") -> dict[str, Any]:
    return {
        "trade_id": trade_id, "ticker": "A", "count_fp": "1.00", "yes_price_dollars": "0.5", "no_price_dollars": "0.5",
        "taker_outcome_side": "yes", "created_time": f"2026-09-20T00:00:{second:02d}{fraction}Z",
    }  # fmt: skip


def test_a_cutoff_that_moves_while_trades_are_read_loses_and_doubles_none() -> None:
    def cutoff(second: int) -> tuple[int, Any]:
        moment = f"2026-09-20T00:00:{second:02d}Z"
        return 200, {"market_settled_ts": moment, "trades_created_ts": moment, "orders_updated_ts": moment}

    script = Script(
        historical__cutoff=[cutoff(10), cutoff(20)],
        # `passed` left this tier before its page was asked for; `seen` leaves it after; both cutoffs lie below `new`.
        markets__trades=[
            (200, {"trades": [trade("new", 30), trade("seen", 19)], "cursor": "c"}),
            (200, {"trades": [trade("stray", 9)], "cursor": ""}),
        ],
        historical__trades=[
            (200, {"trades": [trade("new", 20), trade("seen", 19), trade("passed", 15)], "cursor": "d"}),
            (200, {"trades": [trade("passed", 15), trade("stray", 9, ".999999999"), trade("old", 1)], "cursor": None}),
        ],
    )
    with scripted(script) as client:
        told = [each.trade_id for each in client.iter_trades_of_both_tiers(ticker="A")]
    assert told == ["new", "seen", "passed", "stray", "old"]
    bounds = {path: query for path, query, _ in script.asked}
    assert bounds["/markets/trades"]["min_ts"] == ["1789862410"]
    assert bounds["/historical/trades"]["max_ts"] == ["1789862421"]


@pytest.mark.parametrize("digits", range(10))
def test_times_with_any_number_of_fraction_digits(digits: int) -> None:
    fraction = "." + "123456789"[:digits] if digits else ""
    script = Script(markets__trades=[(200, {"trades": [trade("t", 5, fraction)]})])
    with scripted(script) as client:
        (found,) = client.iter_trades()
    micro = int("123456789"[:digits].ljust(6, "0")[:6])
    assert found.created_time_us == 1_789_862_405_000_000 + micro
    assert found.exchange_ts_us == 1_789_862_405_000_000 + micro // 1_000 * 1_000
