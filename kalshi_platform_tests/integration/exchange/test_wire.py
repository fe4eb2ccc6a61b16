"""The WebSocket connection against a server that sends what it is told, byte by byte."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import AuthenticationFailed, ConnectionLost, ExchangeUnavailable, RateLimited
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.exchange.websocket import WebSocketConnection

PEM = rsa.generate_private_key(65_537, 2_048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
TEXT, BINARY, CLOSE, PING, CONTINUATION = 0x1, 0x2, 0x8, 0x9, 0x0


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    head = bytes([opcode | (0x80 if final else 0)])
    size = len(payload)
    if size < 126:
        return head + bytes([size]) + payload
    return head + (b"\x7e" + struct.pack("!H", size) if size < 65_536 else b"\x7f" + struct.pack("!Q", size)) + payload


class Server:
    """Answers each upgrade with the next act; keeps the headers of every one."""

    def __init__(self, acts: list[Callable[[socket.socket], None] | int]) -> None:
        self.acts = acts
        self.requests: list[dict[str, str]] = []
        self.said = b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        for act in self.acts:
            with suppress(OSError):
                link, _ = self.socket.accept()
                with link:
                    link.settimeout(10)
                    self._upgrade(link, act)

    def _upgrade(self, link: socket.socket, act: Callable[[socket.socket], None] | int) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += link.recv(4_096)
        lines = request.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.requests.append(headers)
        if isinstance(act, int):
            link.sendall(f"HTTP/1.1 {act} no\r\nContent-Length: 0\r\n\r\n".encode())
            return
        digest = hashlib.sha1((headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        accept = base64.b64encode(digest).decode()
        upgrade = (
            f"HTTP/1.1 101 ok\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        link.sendall(upgrade.encode())
        act(link)
        with suppress(OSError):
            self.said += link.recv(4_096)


@contextmanager
def connection_to(*acts: Callable[[socket.socket], None] | int) -> Iterator[tuple[WebSocketConnection, Server]]:
    server = Server(list(acts))
    url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/trade-api/ws/v2"
    settings = ExchangeSettings(ws_url=url, key_id="key", private_key_pem=PEM, connect_timeout_s=5.0)
    connection = WebSocketConnection(settings, SYSTEM_CLOCK, "test")
    try:
        yield connection, server
    finally:
        connection.close()
        server.socket.close()
        server.thread.join(10)


def next_payload(connection: WebSocketConnection) -> bytes:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        received = connection.receive()
        if received is not None:
            return received[0]
    raise AssertionError("nothing came")


def test_fragments_with_a_ping_between_make_one_message_and_the_ping_is_answered() -> None:
    def act(link: socket.socket) -> None:
        parts = (
            frame(TEXT, b'{"type":', final=False), frame(PING, b"heartbeat"), frame(CONTINUATION, b'"o', final=False),
            frame(CONTINUATION, b'k"}'), frame(BINARY, b"{}"),
        )  # fmt: skip
        for byte in b"".join(parts):
            link.sendall(bytes([byte]))

    with connection_to(act) as (connection, server):
        connection.open()
        assert next_payload(connection) == b'{"type":"ok"}'
        assert next_payload(connection) == b"{}"
        server.thread.join(10)
        assert server.said[0] == 0x8A
        mask = server.said[2:6]
        assert bytes(byte ^ mask[index % 4] for index, byte in enumerate(server.said[6:15])) == b"heartbeat"


def test_a_frame_of_64_mib_comes_whole_and_one_byte_more_ends_the_connection() -> None:
    size = 64 * 1024 * 1024
    with connection_to(lambda link: link.sendall(frame(TEXT, b"x" * size))) as (connection, _):
        connection.open()
        assert len(next_payload(connection)) == size
    with connection_to(lambda link: link.sendall(frame(TEXT, b"x" * (size + 1))[:100])) as (connection, _):
        connection.open()
        with pytest.raises(ConnectionLost, match="allowed"):
            next_payload(connection)


@pytest.mark.parametrize(
    ("payload", "code"),
    [(struct.pack("!H", 1008) + "Grüße".encode(), 1008), (struct.pack("!H", 1013), 1013), (b"", 1005)],
)
def test_close_codes_are_reported_after_the_frames_before_them(payload: bytes, code: int) -> None:
    with connection_to(lambda link: link.sendall(frame(TEXT, b"last") + frame(CLOSE, payload))) as (connection, _):
        connection.open()
        assert next_payload(connection) == b"last"
        with pytest.raises(ConnectionLost) as caught:
            next_payload(connection)
        assert caught.value.close_code == code


def test_what_is_no_websocket_stream_ends_the_connection() -> None:
    with connection_to(lambda link: link.sendall(frame(CONTINUATION, b"of nothing"))) as (connection, _):
        connection.open()
        with pytest.raises(ConnectionLost) as caught:
            next_payload(connection)
        assert caught.value.close_code == 1002


def test_refusals_are_distinguished_and_every_attempt_is_signed_again() -> None:
    refusals = {401: AuthenticationFailed, 403: AuthenticationFailed, 429: RateLimited, 503: ExchangeUnavailable}
    with connection_to(*refusals, 404, lambda link: None) as (connection, server):
        for kind in (*refusals.values(), ConnectionLost):
            with pytest.raises(kind) as caught:
                connection.open()
            assert type(caught.value) is kind
        connection.open()
        signatures = [request["kalshi-access-signature"] for request in server.requests]
        times = [int(request["kalshi-access-timestamp"]) for request in server.requests]
    assert len(set(signatures)) == 6
    assert times == sorted(times)
    assert {request["kalshi-access-key"] for request in server.requests} == {"key"}
