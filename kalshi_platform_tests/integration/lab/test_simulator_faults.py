"""Injected faults of the simulated exchange, each with its observed effect."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket

from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform_tests.fixtures.exchange import RawClient, eventually, running_exchange, signed_headers


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[ServerThread]:
    with running_exchange(tmp_path, rate=0, markets=5) as running:
        yield running


def add(exchange: ServerThread, ticker: str, count: int = 1) -> list[int]:
    item: dict[str, Any] = {"kind": "delta", "ticker": ticker, "side": "yes", "price_e4": 100, "delta_e2": 100}
    return exchange.publish(*[item] * count)


def test_a_dropped_frame_consumes_its_number_on_the_chosen_connection_only(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with RawClient(exchange, user_agent="victim") as victim, RawClient(exchange, user_agent="healthy") as healthy:
        victim.subscribe_books([ticker])
        healthy.subscribe_books([ticker])
        exchange.fault("drop_frame", user_agent="victim", count=2)
        add(exchange, ticker, 4)
        assert [victim.receive()["seq"] for _ in range(2)] == [4, 5]
        assert [healthy.receive()["seq"] for _ in range(4)] == [2, 3, 4, 5]
    (fault,) = exchange.faults()
    assert [(each["seq"], each["market_ticker"]) for each in fault["effects"]] == [(2, ticker), (3, ticker)]
    assert fault["active"] is False


def test_dropping_on_all_connections_loses_the_same_message_everywhere(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with RawClient(exchange) as one, RawClient(exchange) as two:
        one.subscribe_books([ticker])
        two.subscribe_books([ticker])
        exchange.fault("drop_frame", count=1)
        times = add(exchange, ticker, 2)
        assert one.receive()["msg"] == two.receive()["msg"]
    lost = exchange.faults()[0]["effects"]
    assert len(lost) == 2
    assert {each["ts_ms"] for each in lost} == {times[0] // 1_000}


def test_cut_ends_the_line_at_once(exchange: ServerThread) -> None:
    with RawClient(exchange, user_agent="a") as client, RawClient(exchange, user_agent="b") as other:
        eventually(lambda: len(exchange.state()["connections"]) == 2)
        exchange.fault("cut", connection=0)
        with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
            client.receive()
        eventually(lambda: len(exchange.state()["connections"]) == 1)
        other.reply(other.send("subscribe", channels=["trade"]))


@pytest.mark.parametrize(("after", "received"), [("deliver", [2, 3, 4]), ("drop", [4])])
def test_a_stalled_line_stays_open_and_goes_on_when_released(
    exchange: ServerThread, after: str, received: list[int]
) -> None:
    ticker = exchange.tickers()[0]
    with RawClient(exchange) as client:
        client.subscribe_books([ticker])
        exchange.fault("stall", after=after)
        add(exchange, ticker, 2)
        client.socket.settimeout(0.2)
        with pytest.raises(websocket.WebSocketTimeoutException):
            client.receive()
        client.socket.settimeout(10)
        eventually(lambda: exchange.faults()[0]["hits"] == 1)
        exchange.clear_faults()
        add(exchange, ticker)
        assert [client.receive()["seq"] for _ in received] == received


@pytest.mark.parametrize("status", [401, 429, 503])
def test_handshakes_are_refused_once(exchange: ServerThread, status: int) -> None:
    exchange.fault("refuse_handshake", status=status)
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        RawClient(exchange)
    assert refusal.value.status_code == status
    with RawClient(exchange):
        pass


def test_rest_answers_the_injected_status_for_matching_paths(exchange: ServerThread) -> None:
    exchange.fault("rest_status", status=429, path="/events", count=1)
    exchange.fault("rest_status", status=502, path="/markets", count=1)
    assert requests.get(exchange.rest_url + "/exchange/status", timeout=10).status_code == 200
    spent = requests.get(exchange.rest_url + "/events", timeout=10)
    assert (spent.status_code, spent.json()) == (429, {"error": "too many requests"})
    assert requests.get(exchange.rest_url + "/markets", timeout=10).status_code == 502
    assert requests.get(exchange.rest_url + "/markets", timeout=10).status_code == 200


def test_slow_rest_keeps_the_caller_waiting(exchange: ServerThread) -> None:
    exchange.fault("slow_rest", delay_s=5, path="/series", count=1)
    with pytest.raises(requests.Timeout):
        requests.get(exchange.rest_url + "/series", timeout=0.2)
    assert requests.get(exchange.rest_url + "/series", timeout=10).status_code == 200


def test_unknown_frames_of_every_variant_leave_the_stream_whole(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with RawClient(exchange) as client:
        client.subscribe_books([ticker])
        exchange.fault("unknown_frame", variant="json")
        exchange.fault("unknown_frame", variant="type")
        exchange.fault("unknown_frame", variant="shape")
        exchange.fault("unknown_frame", frame="not even json")
        add(exchange, ticker)
        texts = [client.socket.recv() for _ in range(4)]
        assert [effect["frame"] for fault in exchange.faults() for effect in fault["effects"]] == texts
        assert client.receive()["seq"] == 3


def test_a_flood_of_unknown_frames_leaves_the_numbers_alone_and_numbered_ones_take_theirs(
    exchange: ServerThread,
) -> None:
    ticker = exchange.tickers()[0]
    with RawClient(exchange) as client:
        client.subscribe_books([ticker])
        flood = exchange.fault("flood", per_second=1_000, seconds=60)
        assert [client.receive() for _ in range(50)][-1] == {"type": "unheard_of_news", "msg": {"n": 49}}
        exchange.clear_faults()
        sent = next(each for each in exchange.faults() if each["id"] == flood["id"])["effects"][0]["frames"]
        for _ in range(sent - 50):
            client.receive()
        exchange.fault("flood", per_second=0.01, numbered=True, seconds=60)
        news = client.receive()
        add(exchange, ticker)
        assert (news["type"], news["seq"], client.receive()["seq"]) == ("unheard_of_news", 2, 3)


def test_an_inactive_exchange_says_when_it_resumes_and_publishes_nothing(exchange: ServerThread) -> None:
    exchange.rate(500)
    eventually(lambda: exchange.state()["published"]["total"] > 10)
    exchange.fault("exchange_inactive", seconds=60)
    status = requests.get(exchange.rest_url + "/exchange/status", timeout=10).json()
    assert status["exchange_active"] is False
    assert status["exchange_estimated_resume_time"] > status_time(exchange)
    published = exchange.state()["published"]["total"]
    exchange.clear_faults()
    exchange.fault("exchange_pause", seconds=60)
    status = requests.get(exchange.rest_url + "/exchange/status", timeout=10).json()
    assert (status["exchange_active"], status["trading_active"]) == (True, False)
    before = exchange.state()["published"]["total"]
    exchange.clear_faults()
    eventually(lambda: exchange.state()["published"]["total"] > before)
    assert before >= published


def status_time(exchange: ServerThread) -> str:
    from kalshi_platform.lab.simulator.engine.payloads import time_text

    return time_text(exchange.state()["clock_us"])


def test_get_snapshot_can_be_ignored(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with RawClient(exchange) as client:
        client.subscribe_books([ticker])
        exchange.fault("ignore_get_snapshot", count=1)
        ignored = client.send("update_subscription", sids=[1], action="get_snapshot", market_tickers=[ticker])
        answered = client.send("update_subscription", sids=[1], action="get_snapshot", market_tickers=[ticker])
        frame = client.receive()
        assert (frame["id"], frame["seq"]) == (answered, 2)
        assert ignored != answered


def test_a_created_event_can_be_withheld(exchange: ServerThread) -> None:
    with RawClient(exchange) as client:
        client.reply(client.send("subscribe", channels=["market_lifecycle_v2"]))
        exchange.fault("suppress_lifecycle", count=1)
        silent = exchange.market("create")
        exchange.market("close", ticker=silent["ticker"])
        assert client.receive()["type"] == "event_lifecycle"
        assert client.receive()["msg"]["event_type"] == "close_date_updated"
    assert exchange.faults()[0]["effects"] == [{"event_type": "created", "ticker": silent["ticker"]}]


def test_clock_skew_moves_messages_and_the_judgement_of_signatures(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    before = add(exchange, ticker)[0]
    exchange.fault("clock_skew", offset_s=120)
    assert add(exchange, ticker)[0] > before + 119_000_000
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        RawClient(exchange)
    told = email.utils.parsedate_to_datetime(refused.value.resp_headers["date"]).timestamp()
    assert 110 < told - time.time() < 125
    with RawClient(exchange, headers=signed_headers(exchange, offset_ms=120_000)):
        pass
    exchange.clear_faults()
    # Back to the true clock, and still no step back in the messages.
    assert add(exchange, ticker)[0] > before + 119_000_000


@pytest.mark.parametrize("code", [26, 27])
def test_commands_can_be_refused(exchange: ServerThread, code: int) -> None:
    ticker, other = exchange.tickers()[:2]
    with RawClient(exchange) as client:
        client.subscribe_books([ticker])
        exchange.fault(f"error_{code}", count=1)
        reply = client.reply(client.send("update_subscription", sids=[1], action="add_markets", market_tickers=[other]))
        assert (reply["type"], reply["msg"]["code"], reply["sid"], reply["seq"]) == ("error", code, 1, 2)
        client.send("update_subscription", sids=[1], action="add_markets", market_tickers=[other])
        assert client.until_type("orderbook_snapshot")["msg"]["market_ticker"] == other


def test_error_25_ends_the_subscription_and_a_new_one_has_a_new_sid(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with RawClient(exchange) as client:
        client.subscribe_books([ticker])
        exchange.fault("error_25")
        frame = client.receive()
        assert (frame["type"], frame["msg"]["code"], frame["sid"], frame["seq"]) == ("error", 25, 1, 2)
        assert client.subscribe_books([ticker]) == 2


def test_a_reader_that_never_reads_is_ended_by_error_25(tmp_path: Path) -> None:
    with (
        running_exchange(tmp_path, rate=20_000, markets=5, overflow_bytes=200_000) as exchange,
        RawClient(exchange) as client,
    ):
        client.subscribe_books(exchange.tickers())
        eventually(lambda: not exchange.state()["connections"][0]["subscriptions"], within_s=30)
        error = client.until_type("error")
    assert error["msg"]["code"] == 25


def test_a_field_is_added_to_frames_until_it_is_taken_back(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with RawClient(exchange, user_agent="one") as client, RawClient(exchange, user_agent="other") as other:
        for each in (client, other):
            each.subscribe_books([ticker])
        exchange.fault("add_field", type="orderbook_delta", name="fresh", value={"a": 1}, user_agent="one")
        exchange.fault("more_decimals", type="orderbook_delta", name="price_dollars", user_agent="one")
        exchange.fault("rename_field", type="orderbook_delta", name="sid", to="stream", envelope=True, user_agent="one")
        add(exchange, ticker, 2)
        changed, plain = client.receive(), other.receive()
        assert (changed["msg"]["fresh"], changed["msg"]["price_dollars"], changed["stream"]) == ({"a": 1}, "0.01005", 1)
        assert (plain["msg"].get("fresh"), plain["msg"]["price_dollars"], plain["sid"]) == (None, "0.0100", 1)
        client.receive()
        assert [fault["effects"][0]["changed"] for fault in exchange.faults()] == [2, 2, 2]
        exchange.clear_faults()
        add(exchange, ticker)
        assert client.receive()["msg"].keys() == plain["msg"].keys()


def test_responses_to_commands_change_their_shape_too(exchange: ServerThread) -> None:
    exchange.fault("add_field", type="subscribed", name="shard", value=2)
    with RawClient(exchange) as client:
        assert client.reply(client.send("subscribe", channels=["trade"]))["msg"]["shard"] == 2


def test_objects_of_rest_change_their_shape_until_it_is_taken_back(exchange: ServerThread) -> None:
    exchange.fault("rename_field", object="market", name="yes_bid_dollars", to="yes_bid_usd")
    markets = requests.get(exchange.rest_url + "/markets", timeout=10).json()["markets"]
    assert all("yes_bid_usd" in market and "yes_bid_dollars" not in market for market in markets)
    exchange.clear_faults("rename_field")
    markets = requests.get(exchange.rest_url + "/markets", timeout=10).json()["markets"]
    assert all("yes_bid_dollars" in market for market in markets)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, {"type": "future", "msg": {"n": 0}}),
        ({"numbered": True}, {"type": "future", "sid": 1, "seq": 2, "msg": {"n": 0}}),
        ({"ticker": "KX"}, {"type": "future", "msg": {"market_ticker": "KX", "n": 0}}),
    ],
)
def test_a_new_type_comes_with_and_without_number_and_ticker(
    exchange: ServerThread, params: dict[str, Any], expected: dict[str, Any]
) -> None:
    with RawClient(exchange) as client:
        client.subscribe_books(exchange.tickers()[:1])
        exchange.fault("new_type", type="future", per_second=1_000, **params)
        assert client.receive() == expected
        assert client.receive()["msg"]["n"] == 1


def test_a_new_type_names_a_subscribed_market(exchange: ServerThread) -> None:
    ticker = exchange.tickers()[0]
    with RawClient(exchange) as client:
        client.subscribe_books([ticker])
        exchange.fault("new_type", numbered=True, ticker=True)
        assert client.receive()["msg"]["market_ticker"] == ticker
