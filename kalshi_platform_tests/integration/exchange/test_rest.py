"""The REST client against the simulated exchange, over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionLost,
    ExchangeUnavailable,
    InvalidQuery,
    MarketNotYetVisible,
    RateLimited,
    RequestRejected,
    UnparsableMessage,
)
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform_tests.fixtures.exchange import running_exchange


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with running_exchange(tmp_path_factory.mktemp("exchange"), markets=1_203, rate=0) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_faults_left(exchange: ServerThread) -> Iterator[None]:
    yield
    exchange.clear_faults()


def settings_of(exchange: ServerThread, **changes: Any) -> ExchangeSettings:
    settings = ExchangeSettings(
        rest_url=exchange.rest_url,
        ws_url=exchange.ws_url,
        key_id=exchange.key_id,
        private_key_pem=exchange.key_file.read_bytes(),
        retry_base_s=0.01,
        retry_cap_s=0.05,
        reads_per_second=1_000,
    )
    return replace(settings, **changes)


def client_of(exchange: ServerThread, **changes: Any) -> RestClient:
    return RestClient(settings_of(exchange, **changes), SYSTEM_CLOCK)


def requests_hit(exchange: ServerThread, path: str) -> int:
    """How many requests for `path` met a fault so far."""
    return sum(effect.get("path", "").endswith(path) for fault in exchange.faults() for effect in fault["effects"])


def test_status_schedule_and_catalog(exchange: ServerThread) -> None:
    client = client_of(exchange)
    status = client.exchange_status()
    assert (status.exchange_active, status.trading_active) == (True, True)
    assert client.exchange_schedule().standard_hours
    series = list(client.iter_series())
    events = list(client.iter_events(status="open"))
    assert {event.series_ticker for event in events} <= {each.ticker for each in series}
    assert client.series(series[0].ticker) == series[0]
    assert client.event(events[0].event_ticker).title == events[0].title


def test_paging_gives_every_market_once(exchange: ServerThread) -> None:
    client = client_of(exchange)
    markets = list(client.iter_markets(status="open"))
    tickers = [market.ticker for market in markets]
    assert len(tickers) > 1_000  # more than one page
    assert len(set(tickers)) == len(tickers)
    assert set(exchange.tickers()) <= set(tickers)
    assert {market.status for market in markets} == {"active"}
    assert not any(market.mve_collection_ticker for market in markets)
    with_combos = {market.ticker for market in client.iter_markets(status="open", mve_filter=None)}
    assert with_combos > set(tickers)
    assert {market.ticker for market in client.iter_markets(tickers=tickers[:3])} == set(tickers[:3])
    assert client.market(tickers[0]).payload


def test_a_market_that_is_not_there_may_come_yet(exchange: ServerThread) -> None:
    with pytest.raises(MarketNotYetVisible) as caught:
        client_of(exchange).market("KX NO/SUCH?")
    assert caught.value.ticker == "KX NO/SUCH?"


def test_books_one_by_one_and_in_a_batch(exchange: ServerThread) -> None:
    client, tickers = client_of(exchange), exchange.tickers()[:100]
    before_ns = SYSTEM_CLOCK.now_ns()
    answer = client.books(tickers)
    assert set(answer.books) == set(tickers)
    assert before_ns <= answer.requested_at_ns <= answer.answered_at_ns <= SYSTEM_CLOCK.now_ns()
    for ticker in tickers[:3]:
        truth = exchange.book(ticker)
        expected = (tuple(map(tuple, truth["yes"])), tuple(map(tuple, truth["no"])))
        assert answer.books[ticker] == client.book(ticker) == expected
    assert any(yes or no for yes, no in answer.books.values())
    for wrong in ([], exchange.tickers()[:101]):
        with pytest.raises(InvalidQuery, match="1 to 100"):
            client.books(wrong)


def test_trades_and_candles_of_a_market(exchange: ServerThread) -> None:
    client, ticker = client_of(exchange), exchange.tickers()[5]
    times = exchange.publish(
        *({"kind": "trade", "ticker": ticker, "yes_price_e4": 4_200, "count_e2": 150 + n} for n in range(3))
    )
    trades = list(client.iter_trades(ticker=ticker, min_ts=times[0] // 1_000_000 - 1))
    assert [trade.count_e2 for trade in trades] == [152, 151, 150]
    assert sorted(trade.exchange_ts_us for trade in trades) == [time // 1_000 * 1_000 for time in times]
    assert {(trade.yes_price_e4, trade.no_price_e4, trade.source) for trade in trades} == {(4_200, 5_800, "rest")}
    end = times[-1] // 1_000_000 + 60
    candles = client.candlesticks([ticker], end - 3_600, end, 1)
    assert sum(candle.volume_e2 or 0 for candle in candles) >= 453


def test_a_429_is_retried_with_backoff(exchange: ServerThread) -> None:
    before = requests_hit(exchange, "/exchange/status")
    exchange.fault("rest_status", status=429, count=2, path="/exchange/status")
    assert client_of(exchange).exchange_status().exchange_active
    assert requests_hit(exchange, "/exchange/status") - before == 2


@pytest.mark.parametrize(
    ("status", "error"), [(429, RateLimited), (500, ExchangeUnavailable), (503, ExchangeUnavailable)]
)
def test_transient_errors_end_after_the_last_attempt(
    exchange: ServerThread, status: int, error: type[Exception]
) -> None:
    exchange.fault("rest_status", status=status, count=50, path="/markets/trades")
    before = requests_hit(exchange, "/markets/trades")
    with pytest.raises(error):
        list(client_of(exchange, max_attempts=3).iter_trades())
    assert requests_hit(exchange, "/markets/trades") - before == 3


def test_a_rejected_request_is_not_repeated(exchange: ServerThread) -> None:
    exchange.fault("rest_status", status=418, count=50, path="/exchange/schedule")
    before = requests_hit(exchange, "/exchange/schedule")
    with pytest.raises(RequestRejected) as caught:
        client_of(exchange).exchange_schedule()
    assert (caught.value.status, caught.value.code) == (418, "rejected")
    assert requests_hit(exchange, "/exchange/schedule") - before == 1


def test_slow_answers_are_a_lost_connection(exchange: ServerThread) -> None:
    exchange.fault("slow_rest", delay_s=1, count=2, path="/exchange/schedule")
    client = client_of(exchange, request_timeout_s=0.2, max_attempts=2)
    with pytest.raises(ConnectionLost):
        client.exchange_schedule()


def test_an_inactive_exchange_is_an_answer(exchange: ServerThread) -> None:
    exchange.fault("exchange_inactive", seconds=60)
    status = client_of(exchange, max_attempts=1).exchange_status()
    assert not status.exchange_active


def test_limits_need_a_signature_and_set_the_budget(exchange: ServerThread) -> None:
    client = client_of(exchange, rest_share=0.5)
    limits = client.account_limits()
    assert (limits.read_refill_per_s, limits.read_bucket_capacity) == (200, 400)
    assert client.read_budget() <= 20
    with pytest.raises(ConfigurationError, match="key_id"):
        client_of(exchange, key_id=None).account_limits()


def test_a_wrong_key_is_named_with_its_suspects(exchange: ServerThread) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(AuthenticationFailed, match="clock") as caught:
        client_of(exchange, private_key_pem=other, sign_public_reads=True).exchange_status()
    assert caught.value.status == 401
    assert exchange.key_id not in str(caught.value)


def test_a_refused_connection_is_a_lost_connection(exchange: ServerThread) -> None:
    with pytest.raises(ConnectionLost):
        client_of(exchange, rest_url="http://127.0.0.1:9/trade-api/v2", max_attempts=2).exchange_status()


def test_a_stop_interrupts_the_wait_for_the_budget(exchange: ServerThread) -> None:
    stop = threading.Event()
    client = RestClient(settings_of(exchange, reads_per_second=0.001), SYSTEM_CLOCK, stop)
    client.exchange_status()  # spends all there is: the next would wait for a quarter of an hour
    failures: list[ConnectionLost] = []

    def read() -> None:
        try:
            client.exchange_status()
        except ConnectionLost as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    stop.set()
    reader.join(10)
    assert len(failures) == 1


def test_many_threads_share_one_client(exchange: ServerThread) -> None:
    client, tickers = client_of(exchange), exchange.tickers()[:40]
    seen: list[str] = []

    def read(part: list[str]) -> None:
        seen.extend(client.market(ticker).ticker for ticker in part)

    threads = [threading.Thread(target=read, args=(tickers[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == sorted(tickers)


class ScriptedClient(RestClient):
    """Answers from a list in place of the network."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(ExchangeSettings(), SYSTEM_CLOCK)
        self.answers = list(answers)
        self.asked: list[list[tuple[str, str]]] = []

    def _once(self, path: str, params: Any, **_: Any) -> Any:
        self.asked.append(list(params))
        return self.answers.pop(0)


@pytest.mark.parametrize("last", [{"cursor": ""}, {"cursor": None}, {}])
def test_paging_stops_at_an_empty_or_absent_cursor(last: dict[str, Any]) -> None:
    event, other = {"event_ticker": "A"}, {"event_ticker": "B"}
    client = ScriptedClient({"events": [event], "cursor": "one"}, {"events": [other], **last}, {})
    assert len(list(client.iter_events())) == 2
    assert [dict(params).get("cursor") for params in client.asked] == [None, "one"]


def test_a_broken_object_costs_only_itself_and_a_broken_answer_is_reported() -> None:
    client = ScriptedClient({"events": [{"event_ticker": "A"}, {"event_ticker": 5}, {"event_ticker": "B"}]})
    assert [event.event_ticker for event in client.iter_events()] == ["A", "B"]
    with pytest.raises(UnparsableMessage):
        list(ScriptedClient({"surprise": []}).iter_events())
