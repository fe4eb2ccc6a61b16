"""The connection over TLS, as in production: trust is checked, and no byte waits unseen inside the TLS layer."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import ipaddress
import socket
import ssl
import struct
import termios
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.config import load_public_reads
from kalshi_platform.errors import ConnectionLost
from kalshi_platform.exchange.http import HttpClient
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.exchange.websocket import WebSocketConnection

CA_VARIABLES = ("KALSHI_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE")
FRAMES = 2_000
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class TlsServer:
    """Accepts connections one after the other; to each it sends FRAMES frames in one burst, then echoes one command."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.certificate = folder / "certificate.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file = folder / "key.pem"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, key_file)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.received: list[bytes] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            raw.settimeout(10)
            try:
                with self._context.wrap_socket(raw, server_side=True) as connection:
                    self._talk(connection)
            except OSError:
                continue

    def _talk(self, connection: ssl.SSLSocket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        if b"Upgrade: websocket" not in request:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            return
        lines = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
        accept = base64.b64encode(hashlib.sha1(lines[b"Sec-WebSocket-Key"] + GUID).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        connection.sendall(b"".join(_frame(b"%d" % number * 10) for number in range(FRAMES)))
        payload = _unmasked(connection)
        self.received.append(payload)
        connection.sendall(_frame(payload))
        connection.recv(1)


def _frame(payload: bytes) -> bytes:
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7f" + struct.pack("!Q", len(payload))
    return b"\x81" + length + payload


def _exactly(connection: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    return data


def _unmasked(connection: ssl.SSLSocket) -> bytes:
    size = _exactly(connection, 2)[1] & 0x7F
    if size == 127:
        size = struct.unpack("!Q", _exactly(connection, 8))[0]
    mask = _exactly(connection, 4)
    payload = _exactly(connection, size)
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path)
    yield server
    server.stop()


def settings_of(server: TlsServer, **more: Any) -> ExchangeSettings:
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    address = f"127.0.0.1:{server.port}/trade-api"
    return ExchangeSettings(
        rest_url=f"https://{address}/v2",
        ws_url=f"wss://{address}/ws/v2",
        key_id="key-1",
        private_key_pem=pem,
        connect_timeout_s=5,
        **more,
    )


def ask(settings: ExchangeSettings, client: str) -> None:
    """Reach the server by one of the two clients."""
    if client == "rest":
        assert HttpClient(settings).get(f"{settings.rest_url}/x", (), {}).content == b"{}"
        return
    connection = WebSocketConnection(settings, SYSTEM_CLOCK, "tls")
    connection.open()
    connection.close()


def test_a_burst_and_a_large_command_pass_whole(server: TlsServer) -> None:
    connection = WebSocketConnection(settings_of(server, ca_file=server.certificate), SYSTEM_CLOCK, "tls")
    connection.open()
    frames: list[bytes] = []
    for _ in range(FRAMES):
        got = connection.receive()
        assert got is not None, f"stalled after {len(frames)} of {FRAMES} frames"
        frames.append(got[0])
        if len(frames) == FRAMES:
            break
    assert frames == [b"%d" % number * 10 for number in range(FRAMES)]
    command = b"x" * 60_000 + b"y" * 10_000
    connection.send(command)
    echo = next(got for got in iter(connection.receive, b"never") if got is not None)
    assert echo[0] == command
    assert server.received == [command]
    assert connection._socket is not None
    ciphertext = struct.unpack("i", fcntl.ioctl(connection._socket.fileno(), termios.FIONREAD, b"\0\0\0\0"))[0]
    assert ciphertext > 0
    connection.confirm()
    assert struct.unpack("i", fcntl.ioctl(connection._socket.fileno(), termios.FIONREAD, b"\0\0\0\0"))[0] == 0
    connection.close()


@pytest.mark.parametrize("client", ["rest", "websocket"])
def test_an_untrusted_certificate_is_refused_with_the_remedy(
    server: TlsServer, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConnectionLost, match=r"certificate of the other side is not trusted .* set KALSHI_CA_FILE"):
        ask(settings_of(server), client)


@pytest.mark.parametrize("client", ["rest", "websocket"])
@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_one_setting_makes_both_clients_trust(
    server: TlsServer, monkeypatch: pytest.MonkeyPatch, variable: str, client: str
) -> None:
    # What each library would look at by itself is not asked: these would lead it astray.
    for name in CA_VARIABLES:
        monkeypatch.setenv(name, certifi.where())
    trusted = load_public_reads({variable: str(server.certificate)})
    ask(settings_of(server, ca_file=trusted.ca_file), client)
