"""Moves frames over one WebSocket connection to Kalshi. The only module that uses `websocket-client`.

The library makes the connection (TCP, proxy, signed upgrade). Receiving is done here on its socket: one large read, all
frames sliced out of it, which at high rates costs a fraction of reading frame by frame. Compression is not offered.

Frames are handed out before their bytes are taken from the kernel, which `confirm` does: when a process dies between,
what it did not store is still unread. Of a frame that has not wholly arrived the first bytes are taken.

`receive` and `confirm` belong to one thread; `send` and `close` may be called from any.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections import deque
from urllib.parse import urlsplit

import websocket

from kalshi_platform.clock import Clock
from kalshi_platform.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionLost,
    ExchangeUnavailable,
    KalshiPlatformError,
    RateLimited,
)
from kalshi_platform.exchange.framing import CLOSE, PING, PONG, FrameDecoder, FramingError
from kalshi_platform.exchange.http import tls_problem
from kalshi_platform.exchange.peekable import PeekableSocket, PeekableTlsContext
from kalshi_platform.exchange.server_clock import auth_failure_hints, offset_by
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform.surroundings import LOOPBACK

RECEIVE_TIMEOUT_S = 0.5
"""Longest wait of `receive`, so that its caller can check deadlines and a stop."""
_NORMAL_CLOSURE = struct.pack("!H", 1000)


class WebSocketConnection:
    """Moves frames and stamps their receive time, without reading their content."""

    def __init__(self, settings: ExchangeSettings, clock: Clock, name: str) -> None:
        """Set up the connection, not opened yet; `name` appears in errors and logs."""
        if not settings.key_id or not settings.private_key_pem:
            raise ConfigurationError(
                ["the WebSocket needs key_id and private_key_pem: make an API key with read scope at Kalshi"]
            )
        self.name = name
        self.last_received_ns = 0
        """Receive time of the last bytes, pings included; 0 before `open`."""
        self.last_data_ns = 0
        """Receive time of the last data frame; 0 before the first."""
        self.last_data_s = 0.0
        """The same by the monotonic clock: spans measured from it survive a wall clock that is set."""
        self._settings = settings
        self._clock = clock
        self._signer = Signer(settings.key_id, settings.private_key_pem)
        self._path = urlsplit(settings.ws_url).path or "/"
        self._socket: PeekableSocket | None = None
        self._poll = select.poll()
        self._io = threading.Lock()
        self._sending = threading.Lock()
        self._decoder = FrameDecoder(settings.max_frame_bytes)
        self._ready: deque[tuple[bytes, int]] = deque()
        self._failure: ConnectionLost | None = None
        self._last_received_s = 0.0

    def open(self) -> None:
        """Connect with a fresh signature.

        Raises AuthenticationFailed (401, 403), RateLimited (429: the account's number of connections is used up),
        ExchangeUnavailable (5xx), ConnectionLost.
        """
        self.close()
        headers = self._signer.headers("GET", self._path, self._clock.now_ns() // 1_000_000)
        headers["User-Agent"] = self._settings.user_agent
        parts = urlsplit(self._settings.ws_url)
        requested_at_ns = self._clock.now_ns()
        try:
            client = websocket.WebSocket(
                enable_multithread=True,
                skip_utf8_validation=True,
                sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
                sslopt={"context": PeekableTlsContext(self._settings.ca_file)} if parts.scheme == "wss" else {},
            )
            client.connect(
                self._settings.ws_url,
                header=headers,
                timeout=self._settings.connect_timeout_s,
                suppress_origin=True,
                redirect_limit=0,
                # The library reads NO_PROXY alone where that is set.
                http_no_proxy=[parts.hostname] if parts.hostname in LOOPBACK else None,
            )
        except websocket.WebSocketBadStatusException as error:
            offset = offset_by(error.resp_headers or {}, requested_at_ns, self._clock.now_ns())
            raise self._refused(int(error.status_code), offset) from error
        except ssl.SSLError as error:
            raise ConnectionLost(f"{self.name}: could not connect: {tls_problem(error)}") from error
        except (websocket.WebSocketException, OSError, ValueError) as error:
            raise ConnectionLost(f"{self.name}: could not connect: {type(error).__name__}: {error}") from error
        self._socket = client.sock if isinstance(client.sock, PeekableSocket) else PeekableSocket(client.sock)
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._decoder = FrameDecoder(self._settings.max_frame_bytes)
        self._ready.clear()
        self._failure = None
        self.last_received_ns = self._clock.now_ns()
        self._last_received_s = self._clock.monotonic()

    def receive(self) -> tuple[bytes, int] | None:
        """Return the next frame and its receive time (ns), or None after about half a second without one.

        What was handed out before is confirmed, once there is no more of it. Frames that came before the connection
        ended are delivered first; then it raises ConnectionLost (with the close code, if the server sent one), also
        when neither ping nor frame came for `ping_timeout_s`.
        """
        if self._ready:
            return self._ready.popleft()
        if self._failure is None:
            try:
                self._read()
            except ConnectionLost as error:
                self._failure = error
            if self._ready:
                return self._ready.popleft()
        if self._failure is not None:
            self._release()
            raise self._failure
        silent_s = self._clock.monotonic() - self._last_received_s
        if silent_s > self._settings.ping_timeout_s:
            self._release()
            self._failure = ConnectionLost(f"{self.name}: neither ping nor frame for {silent_s:.0f} s")
            raise self._failure
        return None

    def receive_ready(self) -> list[tuple[bytes, int]]:
        """Return, without waiting, the remaining frames of the last socket read."""
        frames = list(self._ready)
        self._ready.clear()
        return frames

    def confirm(self) -> None:
        """Take from the kernel what was handed out, because it is stored; nothing while frames of it wait here."""
        sock = self._socket
        if sock is not None and not self._ready:
            with self._io:
                sock.confirm()

    def send(self, payload: bytes) -> None:
        """Send one text frame. Raises ConnectionLost."""
        self._send(payload, websocket.ABNF.OPCODE_TEXT)

    def close(self) -> None:
        """Send a close frame if that is possible without waiting, and close the socket."""
        if self._socket is not None:
            with contextlib.suppress(ConnectionLost):
                self._send(_NORMAL_CLOSURE, websocket.ABNF.OPCODE_CLOSE, timeout_s=0.0)
        self._release()

    # -- the socket

    def _read(self) -> None:
        """Wait for bytes, read once, and append whole frames to `_ready`."""
        sock = self._socket
        if sock is None:
            raise ConnectionLost(f"{self.name}: the connection is closed")
        data = self._read_some(sock)
        if data is None:
            return
        now_ns = self._clock.now_ns()
        self.last_received_ns = now_ns
        self._last_received_s = self._clock.monotonic()
        if not data:
            raise ConnectionLost(f"{self.name}: the other side closed the connection without a word")
        try:
            messages = self._decoder.feed(data)
        except FramingError as error:
            raise ConnectionLost(f"{self.name}: {error}", close_code=1002) from error
        ready = self._ready
        for opcode, payload in messages:
            if opcode < CLOSE:
                ready.append((payload, now_ns))
                self.last_data_ns, self.last_data_s = now_ns, self._last_received_s
            elif opcode == PING:
                self._send(payload, websocket.ABNF.OPCODE_PONG)
            elif opcode == CLOSE:
                self._closed_by_server(payload)
            elif opcode != PONG:
                raise ConnectionLost(f"{self.name}: unknown opcode {opcode}", close_code=1002)

    def _read_some(self, sock: PeekableSocket) -> bytes | None:
        """Read once; return None if nothing came in time. The lock keeps TLS reads and writes of two threads apart."""
        try:
            with self._io:
                return sock.peek()
        except BlockingIOError:
            pass
        except OSError as error:
            raise ConnectionLost(f"{self.name}: {type(error).__name__}: {error}") from error
        try:
            if not self._poll.poll(RECEIVE_TIMEOUT_S * 1_000):
                return None
            with self._io:
                return sock.peek()
        except BlockingIOError:
            return None
        except (OSError, ValueError) as error:
            raise ConnectionLost(f"{self.name}: {type(error).__name__}: {error}") from error

    def _send(self, payload: bytes, opcode: int, *, timeout_s: float | None = None) -> None:
        frame = memoryview(websocket.ABNF.create_frame(payload, opcode).format())
        timeout_s = self._settings.request_timeout_s if timeout_s is None else timeout_s
        with self._sending:
            while frame:
                sock = self._socket
                if sock is None:
                    raise ConnectionLost(f"{self.name}: the connection is closed")
                try:
                    with self._io:
                        sent = sock.send(frame)
                    frame = frame[sent:]
                    continue
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise ConnectionLost(f"{self.name}: {type(error).__name__}: {error}") from error
                self._wait_writable(sock, timeout_s)

    def _wait_writable(self, sock: PeekableSocket, timeout_s: float) -> None:
        try:
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            writable = bool(poll.poll(timeout_s * 1_000))
        except (OSError, ValueError) as error:
            raise ConnectionLost(f"{self.name}: {type(error).__name__}: {error}") from error
        if not writable:
            # Half a frame may be out: nothing can follow on this connection.
            raise ConnectionLost(f"{self.name}: the other side takes no data")

    def _closed_by_server(self, payload: bytes) -> None:
        code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
        reason = payload[2:].decode(errors="replace")
        with contextlib.suppress(ConnectionLost):
            self._send(payload[:2], websocket.ABNF.OPCODE_CLOSE, timeout_s=0.0)
        raise ConnectionLost(f"{self.name}: closed by the server: {code} {reason[:100]}".rstrip(), close_code=code)

    def _release(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            with self._io:
                # Unread bytes would make the kernel reset the connection, which may destroy what was sent last.
                sock.confirm()
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes a receive of another thread
            with contextlib.suppress(OSError):
                sock.close()

    def _refused(self, status: int, offset: Offset | None) -> KalshiPlatformError:
        if status in (401, 403):
            return AuthenticationFailed(
                f"{self.name}: the exchange refused the signature (HTTP {status}). {auth_failure_hints(offset)}",
                status=status,
            )
        if status == 429:
            return RateLimited(f"{self.name}: too many connections or attempts for this account (HTTP 429)")
        if status >= 500:
            return ExchangeUnavailable(f"{self.name}: the exchange refuses connections (HTTP {status})", status=status)
        return ConnectionLost(f"{self.name}: the upgrade was refused (HTTP {status})")
