"""Records every byte that was sent to every connection, and how many of them the peer's kernel acknowledged.

A folder holds one file for each connection, `000001.sent` and on in the order of their handshakes, and one of the
bodies of REST's books, `books.sent`. A file is a row of entries: kind (u8), length (u32, little-endian), content. Kinds
below 16 are WebSocket opcodes with the payload of one frame, in the order in which they were written to the socket.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kalshi_platform.clock import Clock
from kalshi_platform.errors import PermanentError

_log = logging.getLogger(__name__)

ENTRY = struct.Struct("<BI")
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
OPENED, ENDED, BOOKS = 0x80, 0x81, 0x82
BOOKS_FILE = "books.sent"
_BYTES_ACKED = 120
"""Offset of `tcpi_bytes_acked` in Linux' `struct tcp_info` (linux/tcp.h); it stays readable after a reset."""
_BUFFER_BYTES = 256 * 1024


class SentRecordDamaged(PermanentError):
    """A file of the record that does not read as it was written."""


class _Delivery:
    """Counts the bytes that the peer's kernel acknowledged since the handshake, also after the connection has died."""

    def __init__(self, sock: socket.socket, waiting_bytes: int) -> None:
        # The transport closes its own descriptor before anybody can look.
        self._socket = socket.socket(fileno=os.dup(sock.fileno()))
        self._begin = 0
        self._begin = self._acked() + self._unacked() + waiting_bytes

    def acknowledged(self) -> int:
        """Return the bytes after the handshake that the peer's kernel has: read by the peer, or in its queue."""
        return max(0, self._acked() - self._begin)

    def close(self) -> None:
        self._socket.close()

    def _acked(self) -> int:
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(struct.unpack_from("<Q", info, _BYTES_ACKED)[0])

    def _unacked(self) -> int:
        import fcntl
        import termios

        return int(struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])


class ConnectionRecord:
    """The file of one connection."""

    def __init__(self, record: SentRecord, path: Path, opened: dict[str, Any]) -> None:
        self.number = int(path.stem)
        self._record = record
        self._file = path.open("xb", buffering=_BUFFER_BYTES)
        self._delivery: _Delivery | None = None
        self._is_cut_off = False
        _append(self._file, OPENED, json.dumps(opened).encode())

    def attach(self, sock: socket.socket | None, waiting_bytes: int) -> None:
        """Begin to count what is delivered; right after the handshake."""
        if sock is not None and hasattr(socket, "TCP_INFO"):
            self._delivery = _Delivery(sock, waiting_bytes)

    def append(self, opcode: int, payloads: Iterable[bytes]) -> None:
        """Append frames that were handed to the socket."""
        for payload in payloads:
            self._is_cut_off = self._is_cut_off or not self._record.has_room(len(payload))
            if self._is_cut_off:
                return
            _append(self._file, opcode, payload)

    def flush(self) -> None:
        """Write what is buffered."""
        self._file.flush()

    def end(self, at_ns: int) -> None:
        """Write how it ended, and how much was delivered (None: unknown here), and close the file."""
        delivered = None
        if self._delivery is not None:
            delivered = self._delivery.acknowledged()
            self._delivery.close()
        ended = {"ended_at_ns": at_ns, "delivered_bytes": delivered, "is_cut_off": self._is_cut_off}
        _append(self._file, ENDED, json.dumps(ended).encode())
        self._file.close()


class SentRecord:
    """A folder of records. What is more than `limit_bytes` is not recorded, and the files say so."""

    def __init__(self, folder: Path, limit_bytes: int, clock: Clock) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._left = limit_bytes
        self._clock = clock
        self._number = max((int(path.stem) for path in folder.glob("[0-9]*.sent")), default=0)
        self._open: list[ConnectionRecord] = []
        self._books = (folder / BOOKS_FILE).open("ab", buffering=_BUFFER_BYTES)

    def has_room(self, size: int) -> bool:
        """Count bytes that are to be recorded; False when the limit is reached."""
        if self._left > 0 >= self._left - size:
            _log.warning("sent_record_full folder=%s", self._folder)
        self._left -= size
        return self._left > 0

    def open(self, connection: str, user_agent: str, key: str) -> ConnectionRecord:
        """Begin the record of a connection; `key` is the Sec-WebSocket-Key of its handshake."""
        self._number += 1
        opened = {
            "connection": connection, "user_agent": user_agent, "key": key, "opened_at_ns": self._clock.now_ns(),
        }  # fmt: skip
        record = ConnectionRecord(self, self._folder / f"{self._number:06d}.sent", opened)
        self._open.append(record)
        return record

    def end(self, record: ConnectionRecord) -> None:
        """End the record of a connection that is gone."""
        self._open.remove(record)
        record.end(self._clock.now_ns())

    def append_books(self, user_agent: str, body: bytes) -> None:
        """Append the body of an answer of REST with books."""
        if self.has_room(len(body)):
            _append(self._books, BOOKS, user_agent.encode() + b"\n" + body)

    def flush(self) -> None:
        """Write what is buffered."""
        self._books.flush()
        for record in self._open:
            record.flush()

    def close(self) -> None:
        """End all records."""
        for record in list(self._open):
            self.end(record)
        self._books.close()


@dataclass(frozen=True)
class SentConnection:
    """What was sent on one connection.

    `delivered_bytes` are of the wire, frame headers included, after the handshake; None while it lives, or unknown.
    """

    path: Path
    number: int
    user_agent: str
    key: str
    opened_at_ns: int
    ended_at_ns: int | None
    delivered_bytes: int | None
    is_cut_off: bool
    has_goodbye: bool
    """Whether the exchange closed it in order, with a close frame behind the last message."""

    def frames(self) -> Iterator[tuple[bytes, int]]:
        """Yield the payload of each text frame, and where it ends on the wire in bytes after the handshake."""
        end = 0
        for kind, content in _entries(self.path):
            if kind < OPENED:
                end += wire_size(len(content))
            if kind == TEXT:
                yield content, end


def wire_size(length: int) -> int:
    """Return the bytes of an unmasked frame with a payload of this length."""
    return length + (2 if length < 126 else 4 if length < 65_536 else 10)


def read_sent(folder: Path) -> list[SentConnection]:
    """Return the connections of a record in the order of their handshakes. Raises SentRecordDamaged."""
    return [_connection(path) for path in sorted(folder.glob("[0-9]*.sent"))]


def read_sent_books(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (User-Agent, body) of the answers of REST with books, in order."""
    for _, content in _entries(folder / BOOKS_FILE):
        user_agent, _, body = content.partition(b"\n")
        yield user_agent.decode(), body


def _connection(path: Path) -> SentConnection:
    opened: dict[str, Any] = {}
    ended: dict[str, Any] = {}
    has_goodbye = False
    for kind, content in _entries(path):
        has_goodbye = has_goodbye or kind == CLOSE
        if kind == OPENED:
            opened = json.loads(content)
        elif kind == ENDED:
            ended = json.loads(content)
    if not opened:
        raise SentRecordDamaged(f"{path} does not begin as a connection's record")
    return SentConnection(
        path, int(path.stem), opened["user_agent"], opened["key"], opened["opened_at_ns"], ended.get("ended_at_ns"),
        ended.get("delivered_bytes"), bool(ended.get("is_cut_off")), has_goodbye,
    )  # fmt: skip


def _append(file: BinaryIO, kind: int, content: bytes) -> None:
    file.write(ENTRY.pack(kind, len(content)))
    file.write(content)


def _entries(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, content); an unfinished entry at the end of a file that is being written is none."""
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        while len(head := file.read(ENTRY.size)) == ENTRY.size:
            kind, length = ENTRY.unpack(head)
            content = file.read(length)
            if len(content) < length:
                return
            yield kind, content
