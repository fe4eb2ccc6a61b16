"""The record of every byte sent, compared with what real sockets received."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from pathlib import Path

import requests

from kalshi_platform.lab.simulator.server.sent_record import SentConnection, read_sent, read_sent_books, wire_size
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform_tests.fixtures.exchange import RawClient, eventually, running_exchange


def publish(exchange: ServerThread, ticker: str, count: int) -> None:
    exchange.publish(*[{"kind": "delta", "ticker": ticker, "side": "yes", "price_e4": 100, "delta_e2": 100}] * count)


def wire_end(connection: SentConnection) -> int:
    return max((end for _, end in connection.frames()), default=0)


def test_every_connection_has_its_frames_byte_for_byte_in_order(tmp_path: Path) -> None:
    with running_exchange(tmp_path, rate=0, markets=3, record_sent=tmp_path / "sent") as exchange:
        received = []
        for name in ("first", "second"):
            with RawClient(exchange, user_agent=name) as client:
                client.send("subscribe", channels=["orderbook_delta"], market_tickers=exchange.tickers())
                publish(exchange, exchange.tickers()[0], 5)
                texts = [client.socket.recv() for _ in range(9)]
                received.append([text.encode() if isinstance(text, str) else text for text in texts])
        body = requests.get(
            f"{exchange.rest_url}/markets/orderbooks", params={"tickers": exchange.tickers()}, timeout=10
        ).content
        eventually(lambda: not exchange.state()["connections"])
        exchange.flush_truth()
        connections = read_sent(tmp_path / "sent")
        assert [each.user_agent for each in connections] == ["first", "second"]
        assert [[frame for frame, _ in each.frames()] for each in connections] == received
        assert [each.delivered_bytes for each in connections] == [wire_end(each) for each in connections]
        assert [each for _, each in read_sent_books(tmp_path / "sent")] == [body]


def test_a_dead_peer_leaves_exactly_what_its_kernel_had_not_acknowledged(tmp_path: Path) -> None:
    with running_exchange(tmp_path, rate=0, markets=1, record_sent=tmp_path / "sent") as exchange:
        ticker = exchange.tickers()[0]
        client = RawClient(exchange)
        client.socket.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        client.subscribe_books([ticker])
        for _ in range(20):
            publish(exchange, ticker, 2_000)
        eventually(lambda: exchange.state()["connections"][0]["waiting_bytes"] > 0)
        read_bytes = sum(wire_size(len(client.socket.recv())) for _ in range(100))

        def unread() -> int:
            return int(struct.unpack("i", fcntl.ioctl(client.socket.sock.fileno(), termios.FIONREAD, b"\0" * 4))[0])

        eventually(lambda: unread() > 0)
        unread_bytes = settled(unread)
        client.socket.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.sock.close()
        eventually(lambda: not exchange.state()["connections"])
        (connection,) = read_sent(tmp_path / "sent")
        greeting = [end for _, end in connection.frames()][1]
        assert connection.delivered_bytes == greeting + read_bytes + unread_bytes
        assert wire_end(connection) > connection.delivered_bytes


def settled(value: Callable[[], int]) -> int:
    """The value once it is the same for a while: acknowledgements have come."""
    seen = [value()]

    def is_settled() -> bool:
        seen.append(value())
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    eventually(is_settled)
    return seen[-1]


def test_a_record_that_is_full_says_so(tmp_path: Path) -> None:
    with running_exchange(
        tmp_path, rate=0, markets=1, record_sent=tmp_path / "sent", record_sent_bytes=2_000
    ) as exchange:
        with RawClient(exchange) as client:
            client.subscribe_books(exchange.tickers())
            publish(exchange, exchange.tickers()[0], 20)
            for _ in range(20):
                client.receive()
        eventually(lambda: not exchange.state()["connections"])
        (connection,) = read_sent(tmp_path / "sent")
        assert connection.is_cut_off
        assert 0 < len(list(connection.frames())) < 22
