"""Reads sockets without taking the bytes from the kernel before `confirm`, with and without TLS.

What a process was handed and has not stored when it dies is then still unread: it was never received. Linux discards
confirmed bytes without copying them (recv with MSG_TRUNC, tcp(7)); elsewhere they are read a second time. With TLS the
encrypted bytes are peeked; only what arrives together with the answer to the upgrade, before anything is subscribed, is
taken at once.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

READ_BYTES = 64 * 1024
"""Bytes of one socket read; larger ones were measured to cost more, because of allocation."""
_RECORD_BYTES = 16 * 1024
_DISCARD = socket.MSG_TRUNC if sys.platform == "linux" else 0


class PeekableSocket:
    """Wraps a connected socket that does not block; the caller keeps threads apart."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._peeked = 0
        self._scratch = bytearray(READ_BYTES)

    def peek(self) -> bytes:
        """Confirm what was returned before, and return the next bytes; b"" at the end.

        Raises BlockingIOError where there are none now, OSError.
        """
        self.confirm()
        data = self._raw.recv(READ_BYTES, socket.MSG_PEEK)
        self._peeked = len(data)
        return data

    def confirm(self) -> None:
        """Take from the kernel what `peek` returned."""
        while self._peeked > 0:
            try:
                discarded = self._raw.recv_into(self._scratch, self._peeked, _DISCARD)
            except OSError:
                discarded = 0
            # After an error there is nothing to take: the next `peek` raises it.
            self._peeked = self._peeked - discarded if discarded else 0

    def send(self, data: memoryview) -> int:
        """Send some of `data`; return how much. Raises BlockingIOError, OSError."""
        return self._raw.send(data)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._raw.fileno()

    def setblocking(self, flag: bool) -> None:
        """Let calls wait or not."""
        self._raw.setblocking(flag)

    def shutdown(self, how: int) -> None:
        """End a direction, or both."""
        self._raw.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self._raw.close()


class PeekableTlsSocket(PeekableSocket):
    """Runs TLS in memory over a connected socket, so that the encrypted bytes can be peeked.

    While it blocks (the handshakes of TLS and of WebSocket) it reads and sends as any socket does, for the library that
    opens the connection.
    """

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, hostname: str) -> None:
        """Make the TLS handshake. Raises ssl.SSLError, OSError."""
        super().__init__(raw)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        # Encrypted bytes that the socket did not take yet, and the plain bytes that they stand for.
        self._unsent = memoryview(b"")
        self._unsent_plain = 0
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._feed(0):
                    raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the other side ended the handshake") from None
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # the alert, which says why
                raise
            else:
                self._flush()
                return

    def peek(self) -> bytes:
        """Confirm what was returned before, and return the next plain bytes; b"" at the end.

        Raises BlockingIOError where there are none now, OSError.
        """
        self.confirm()
        plain = self._decrypt()
        if plain is None:
            if not self._feed(socket.MSG_PEEK):
                return b""
            plain = self._decrypt()
        self._flush_if_possible()
        if plain is None:
            # A part of a TLS record: TLS has it now.
            self.confirm()
            raise BlockingIOError
        return plain

    def send(self, data: memoryview) -> int:
        """Send some of `data`; return how much. After BlockingIOError it must be called with the same again."""
        if not self._unsent_plain:
            self._unsent_plain = self._tls.write(data[:_RECORD_BYTES])
        self._flush()
        sent, self._unsent_plain = self._unsent_plain, 0
        return sent

    # -- as the library that opens the connection uses a socket

    def recv(self, size: int) -> bytes:
        """Return up to `size` plain bytes; b"" at the end."""
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                if not self._feed(0):
                    return b""
            self._flush()

    def settimeout(self, seconds: float | None) -> None:
        """Let calls wait so long."""
        self._raw.settimeout(seconds)

    def gettimeout(self) -> float | None:
        """Return how long calls wait."""
        return self._raw.gettimeout()

    # -- encrypted bytes

    def _feed(self, flags: int) -> bool:
        """Hand encrypted bytes to TLS; return whether there were any, which there are not at the end."""
        data = self._raw.recv(READ_BYTES, flags)
        self._peeked = len(data) if flags else 0
        self._incoming.write(data)
        return bool(data)

    def _decrypt(self) -> bytes | None:
        """Return the plain bytes of the records that TLS has; b"" at the end, None where no record is whole."""
        parts: list[bytes] = []
        while True:
            try:
                part = self._tls.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                return b"".join(parts) if parts else None
            if not part:
                return b"".join(parts)
            parts.append(part)

    def _flush(self) -> None:
        """Send what TLS wants to send. Raises BlockingIOError where a part remains, OSError."""
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            self._unsent = self._unsent[self._raw.send(self._unsent) :]

    def _flush_if_possible(self) -> None:
        """Send what TLS wants to send besides data (an answer to new keys); the rest goes with the next data."""
        with contextlib.suppress(BlockingIOError):
            self._flush()


class PeekableTlsContext:
    """Stands in for the `ssl.SSLContext` that the library wraps its socket with."""

    def __init__(self, ca_file: Path | None) -> None:
        """Trust `ca_file`, else what the system trusts. Raises OSError, ssl.SSLError."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if ca_file is not None:
            self._context.load_verify_locations(cafile=ca_file)
        else:
            self._context.load_default_certs(ssl.Purpose.SERVER_AUTH)

    def wrap_socket(self, sock: socket.socket, *, server_hostname: str, **_: Any) -> PeekableTlsSocket:
        """Make the TLS handshake over `sock`. Raises ssl.SSLError, OSError."""
        return PeekableTlsSocket(sock, self._context, server_hostname)
