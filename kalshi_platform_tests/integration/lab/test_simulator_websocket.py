"""The simulated exchange over real sockets, seen by a plain websocket-client."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import websocket
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.exchange.websocket import WebSocketConnection
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform_tests.fixtures.exchange import RawClient, eventually, running_exchange, signed_headers


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with running_exchange(tmp_path_factory.mktemp("exchange"), rate=0, markets=20, ping_interval_s=0.1) as running:
        yield running


def refused_status(exchange: ServerThread, headers: dict[str, str]) -> int:
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        RawClient(exchange, headers=headers)
    return int(refusal.value.status_code)


def _has_seq(seq: int, frame: dict[str, Any]) -> bool:
    return bool(frame["seq"] == seq)


def test_handshake_needs_a_right_signature(exchange: ServerThread) -> None:
    assert refused_status(exchange, {}) == 401
    assert refused_status(exchange, signed_headers(exchange, path="/trade-api/ws/v2?x=1")) == 401
    assert refused_status(exchange, signed_headers(exchange, salt_bytes=20)) == 401
    assert refused_status(exchange, {**signed_headers(exchange), "KALSHI-ACCESS-KEY": "another"}) == 401
    assert refused_status(exchange, {**signed_headers(exchange), "KALSHI-ACCESS-SIGNATURE": "b64=="}) == 401
    assert refused_status(exchange, signed_headers(exchange, offset_ms=-31_000)) == 401
    with RawClient(exchange, headers=signed_headers(exchange, offset_ms=-25_000)):
        pass


def test_an_ed25519_key_signs_the_same_text_plainly(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "exchange-key.pem").write_bytes(pem)
    with running_exchange(tmp_path, rate=0, markets=1) as exchange:
        settings = ExchangeSettings(
            rest_url=exchange.rest_url, ws_url=exchange.ws_url, key_id=exchange.key_id, private_key_pem=pem
        )
        connection = WebSocketConnection(settings, SYSTEM_CLOCK, "test")
        connection.open()
        connection.close()
        timestamp = str(SYSTEM_CLOCK.now_ns() // 1_000_000)
        wrong = base64.b64encode(key.sign(f"{timestamp}GET/trade-api/ws/v3".encode())).decode()
        headers = {"KALSHI-ACCESS-KEY": exchange.key_id, "KALSHI-ACCESS-TIMESTAMP": timestamp}
        assert refused_status(exchange, {**headers, "KALSHI-ACCESS-SIGNATURE": wrong}) == 401


def test_key_file_is_private_and_shared(exchange: ServerThread) -> None:
    assert exchange.key_file.stat().st_mode & 0o777 == 0o600


def test_two_connections_get_the_same_delta_with_numbers_of_their_own(exchange: ServerThread) -> None:
    ticker, other = exchange.tickers()[:2]
    with RawClient(exchange) as one, RawClient(exchange) as two:
        one.subscribe_books([ticker])
        two.subscribe_books([other, ticker])
        exchange.publish({"kind": "delta", "ticker": ticker, "side": "yes", "price_e4": 100, "delta_e2": 313})
        first, second = one.until_type("orderbook_delta"), two.until_type("orderbook_delta")
    assert first["msg"] == second["msg"]
    assert (first["seq"], second["seq"]) == (2, 3)
    assert first["msg"]["delta_fp"] == "3.13"


def test_server_pings_with_heartbeat_and_answers_client_pings(exchange: ServerThread) -> None:
    with RawClient(exchange) as client:
        client.socket.ping("are you there")
        seen: dict[int, bytes] = {}
        while len(seen) < 2:
            opcode, frame = client.socket.recv_data_frame(control_frame=True)
            seen[opcode] = frame.data
    assert seen[websocket.ABNF.OPCODE_PING] == b"heartbeat"
    assert seen[websocket.ABNF.OPCODE_PONG] == b"are you there"


def test_created_is_announced_before_rest_shows_the_market_and_clock_opening_is_silent(exchange: ServerThread) -> None:
    with RawClient(exchange) as client:
        client.reply(client.send("subscribe", channels=["market_lifecycle_v2"]))
        born = exchange.market("create", open_in_s=0.1, close_in_s=3_600, visible_in_s=30)
        event, created = client.receive(), client.receive()
        assert event["type"] == "event_lifecycle"
        assert created["msg"]["event_type"] == "created"
        assert created["msg"]["additional_metadata"]["event_ticker"] == born["event_ticker"]
        eventually(lambda: exchange.book(born["ticker"])["status"] == "active")
        exchange.market("close", ticker=born["ticker"])
        exchange.market("determine", ticker=born["ticker"], result="yes")
        exchange.market("settle", ticker=born["ticker"])
        types = [client.receive()["msg"]["event_type"] for _ in range(3)]
        assert types == ["close_date_updated", "determined", "settled"]
        assert [frame["seq"] for frame in client.frames if "seq" in frame] == [1, 2, 3, 4, 5]


def test_a_connection_above_the_cap_is_refused_with_429(tmp_path: Path) -> None:
    with running_exchange(tmp_path, rate=0, connection_limit=1) as exchange, RawClient(exchange):
        assert refused_status(exchange, signed_headers(exchange)) == 429


def test_a_thousand_markets_subscribe_in_one_command(tmp_path: Path) -> None:
    with running_exchange(tmp_path, rate=0, markets=1_000) as exchange, RawClient(exchange) as client:
        client.subscribe_books(exchange.tickers())
        ok = client.send("update_subscription", sids=[1], action="add_markets", market_tickers=["KXNEW"])
        assert len(client.reply(ok)["msg"]["market_tickers"]) == 1_001


def test_several_clients_each_receive_every_message_and_hold_the_exact_books(tmp_path: Path) -> None:
    with running_exchange(tmp_path, rate=2_000, markets=20) as exchange:
        tickers = exchange.tickers()
        clients = [RawClient(exchange, user_agent=f"reader-{number}") for number in range(3)]
        try:
            for client in clients:
                client.subscribe_books(tickers)
            readers = [
                threading.Thread(target=client.until, args=(lambda frame: frame.get("seq", 0) >= 3_000,))
                for client in clients
            ]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join(30)
            exchange.rate(0)
            sent = {each["user_agent"]: each for each in exchange.state()["connections"]}
            for number, client in enumerate(clients):
                last = sent[f"reader-{number}"]["subscriptions"][0]["seq"]
                if client.frames[-1]["seq"] < last:
                    client.until(partial(_has_seq, last))
                seqs = [frame["seq"] for frame in client.frames if "seq" in frame]
                assert seqs == list(range(1, last + 1))
            books = {ticker: exchange.book(ticker) for ticker in tickers}
            for client in clients:
                assert folded(client) == {
                    (ticker, side, price): size
                    for ticker in tickers
                    for side in ("yes", "no")
                    for price, size in books[ticker][side]
                }
        finally:
            for client in clients:
                client.socket.close()


def folded(client: RawClient) -> dict[tuple[str, str, int], int]:
    levels: dict[tuple[str, str, int], int] = {}
    for frame in client.frames:
        msg = frame.get("msg", {})
        if frame["type"] == "orderbook_snapshot":
            for side in ("yes", "no"):
                for price, size in msg.get(f"{side}_dollars_fp", []):
                    levels[msg["market_ticker"], side, e4(price)] = int(size.replace(".", ""))
        elif frame["type"] == "orderbook_delta":
            key = (msg["market_ticker"], msg["side"], e4(msg["price_dollars"]))
            levels[key] = levels.get(key, 0) + int(msg["delta_fp"].replace(".", ""))
    return {key: size for key, size in levels.items() if size}


def e4(dollars: str) -> int:
    return int(dollars.replace(".", ""))


def test_broken_json_is_answered_with_error_1_and_the_line_lives(exchange: ServerThread) -> None:
    with RawClient(exchange) as client:
        client.socket.send("{")
        assert client.receive()["msg"]["code"] == 1
        client.socket.send(json.dumps({"id": 5, "cmd": "list_subscriptions"}))
        assert client.receive() == {"id": 5, "type": "ok", "msg": []}
