"""REST answers that are broken, endless, huge or slow: nothing of it may cost more than itself."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConnectionLost, ExchangeUnavailable, RateLimited, UnparsableMessage
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.settings import ExchangeSettings

MIB = 1024 * 1024
GOOD = {"ticker": "KXT-26DEC01-B", "event_ticker": "KXT-26DEC01", "status": "active", "title": "plain"}
Answerer = Callable[[socket.socket, dict[str, str]], None]


@contextmanager
def answered_by(answer: Answerer, **changes: Any) -> Iterator[RestClient]:
    """A client of a server whose every connection is handed to `answer` with the query; it is closed afterwards."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(65_536)
                if not part:
                    return
                head += part
            target = head.split(b" ", 2)[1].decode()
            query = {name: values[-1] for name, values in parse_qs(urlsplit(target).query).items()}
            try:
                answer(connection, query)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    settings = ExchangeSettings(
        rest_url=f"http://127.0.0.1:{listener.getsockname()[1]}/trade-api/v2",
        **{"retry_base_s": 0.01, "retry_cap_s": 0.02, "max_attempts": 2, "reads_per_second": 1_000, **changes},
    )
    try:
        yield RestClient(settings, SYSTEM_CLOCK)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def reply(connection: socket.socket, body: bytes, status: int = 200, **headers: str) -> None:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    "broken",
    [rb'"Cheers \ud83c"', b'"caf\xe9"', b'"x","floor_strike":1e999', b'"x","price_ranges":{"a":1}', b'7', b'null'],
)  # fmt: skip
def test_one_bad_text_or_field_costs_no_other_market_and_not_its_own(broken: bytes) -> None:
    body = b'{"ticker":"KXT-26DEC01-A","status":"active","title":' + broken + b"}," + json.dumps(GOOD).encode()
    with answered_by(lambda sock, _: reply(sock, b'{"markets":[' + body + b'],"cursor":""}')) as client:
        found = list(client.iter_markets())
        assert [market.ticker for market in found] == ["KXT-26DEC01-A", "KXT-26DEC01-B"]
        assert found[0].status == "active"
        assert json.loads(found[0].payload)["ticker"] == "KXT-26DEC01-A"
        assert client.faults.skipped == 0
        assert bool(client.faults.repaired) + bool(client.faults.unexpected_fields) == (broken != b"null")
    if b"price_ranges" in broken:
        assert found[0].price_ranges is None
        assert json.loads(found[0].payload)["price_ranges"] == {"a": 1}
        assert client.faults.unexpected_fields == {"price_ranges": 1}


def test_an_object_without_its_name_is_left_out_and_reported() -> None:
    body = json.dumps({"markets": [{"ticker": 5, "status": "active"}, {"ticker": "C"}, GOOD], "cursor": ""}).encode()
    told: list[str] = []
    with answered_by(lambda sock, _: reply(sock, body)) as client:
        assert [market.ticker for market in client.iter_markets(on_skipped=told.append)] == [GOOD["ticker"]]
        assert (len(told), client.faults.skipped) == (2, 2)


def page(number: int, cursor: str) -> bytes:
    return json.dumps({"markets": [{**GOOD, "ticker": f"KXT-{number}"}], "cursor": cursor}).encode()


COUNT = itertools.count()
ENDLESS: dict[str, Callable[[dict[str, str]], bytes]] = {
    "the same cursor": lambda _: page(next(COUNT), "c"),
    "A, B, A, B": lambda query: page(next(COUNT), "b" if query.get("cursor") == "a" else "a"),
    "the same page under new cursors": lambda _: page(1, f"c{next(COUNT)}"),
    "nothing under new cursors": lambda _: json.dumps({"markets": [], "cursor": f"c{next(COUNT)}"}).encode(),
    "new pages for ever": lambda _: page(next(COUNT), f"c{next(COUNT)}"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_listing_that_does_not_advance_ends_and_is_no_whole_one(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    with answered_by(lambda sock, query: reply(sock, ENDLESS[kind](query)), max_pages=40) as client:
        found = [market.ticker for market in client.iter_markets(on_skipped=told.append)]
        assert len(found) == len(set(found)) <= 41
        assert len(told) == client.faults.cut_listings == 1
        with pytest.raises(UnparsableMessage, match="do not advance"):
            list(client.iter_markets())
    assert [record.levelno for record in caplog.records if "listing_cut" in record.message] == [logging.ERROR] * 2


def test_a_body_that_drips_blocks_no_longer_than_the_deadline() -> None:
    def drip(sock: socket.socket, _: dict[str, str]) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        for _tick in range(600):
            sock.sendall(b" ")
            time.sleep(0.05)

    late = pytest.raises(ConnectionLost, match=r"no whole answer within 0\.6 s")
    with answered_by(drip, answer_deadline_s=0.6, max_attempts=1) as client, late:
        client.exchange_status()


def test_headers_that_drip_block_no_longer_than_the_deadline() -> None:
    def drip(sock: socket.socket, _: dict[str, str]) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _tick in range(600):
            sock.sendall(b"x")
            time.sleep(0.05)

    late = pytest.raises(ConnectionLost, match=r"no whole answer within 0\.6 s")
    with answered_by(drip, answer_deadline_s=0.6, max_attempts=1) as client, late:
        client.exchange_status()


def test_an_answer_cut_by_the_deadline_is_not_taken_for_a_whole_one() -> None:
    def drip(sock: socket.socket, _: dict[str, str]) -> None:
        sock.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"markets":[],"cursor":""}')
        for _tick in range(600):
            sock.sendall(b" ")
            time.sleep(0.05)

    with answered_by(drip, answer_deadline_s=0.6, max_attempts=1) as client, pytest.raises(ConnectionLost):
        list(client.iter_markets())


def test_a_small_answer_that_unpacks_to_a_huge_one_is_not_held() -> None:
    packed = gzip.compress(b" " * (400 * MIB), compresslevel=9)
    assert len(packed) < MIB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    server = answered_by(
        lambda sock, _: reply(sock, packed, Content_Encoding="gzip"), max_answer_bytes=8 * MIB, max_attempts=1
    )
    with server as client, pytest.raises(ExchangeUnavailable, match="larger than 8388608 bytes"):
        client.exchange_status()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def test_an_answer_whose_compression_is_broken_is_requested_again() -> None:
    whole = gzip.compress(json.dumps({"markets": [GOOD], "cursor": ""}).encode())
    bodies = iter([whole[:10] + b"\x00" * 8 + whole[18:], whole])
    with answered_by(lambda sock, _: reply(sock, next(bodies), Content_Encoding="gzip")) as client:
        assert len(list(client.iter_markets())) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_the_exchange_says_when_to_come_again(status: int) -> None:
    asked: list[float] = []

    def answer(sock: socket.socket, _: dict[str, str]) -> None:
        asked.append(time.monotonic())
        if len(asked) == 1:
            reply(sock, b"{}", status, Retry_After="1")
        else:
            reply(sock, json.dumps({"markets": [GOOD], "cursor": ""}).encode())

    with answered_by(answer) as client:
        assert len(list(client.iter_markets())) == 1
    assert asked[1] - asked[0] >= 1.0


def test_a_refusal_carries_how_long_to_wait() -> None:
    server = answered_by(lambda sock, _: reply(sock, b"{}", 429, Retry_After="0"), max_attempts=1)
    with server as client, pytest.raises(RateLimited) as caught:
        client.exchange_status()
    assert caught.value.retry_after_s == 0.0
