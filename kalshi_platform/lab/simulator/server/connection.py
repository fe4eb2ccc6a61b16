"""One WebSocket connection: its session, and the bytes to its socket."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from kalshi_platform.lab.simulator.engine.faults import Peer
from kalshi_platform.lab.simulator.engine.subscriptions import Session
from kalshi_platform.lab.simulator.server.keys import TokenBucket
from kalshi_platform.lab.simulator.server.sent_record import ConnectionRecord

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
HEARTBEAT = b"heartbeat"
SHORT_HEADERS = [bytes((TEXT, n)) if n < 126 else bytes((TEXT, 126)) + n.to_bytes(2, "big") for n in range(2_048)]


def frame_header(opcode: int, length: int) -> bytes:
    """Return the header of an unmasked, final WebSocket frame."""
    if length < 126:
        return bytes((opcode, length))
    if length < 65_536:
        return bytes((opcode, 126)) + length.to_bytes(2, "big")
    return bytes((opcode, 127)) + length.to_bytes(8, "big")


class Connection:
    """A live socket. Frames of the session are framed here and written in one go.

    Nothing is awaited, nothing is reordered.
    """

    def __init__(
        self,
        number: int,
        user_agent: str,
        session: Session,
        bucket: TokenBucket,
        record: ConnectionRecord | None = None,
    ) -> None:
        self.id = f"c{number}"
        self.user_agent = user_agent
        self.session = session
        self.bucket = bucket
        self.record = record
        self.sent = 0
        self.dropped = 0
        self.is_stalled = False
        self.stall_pings = True
        self._transport: Any = None

    def attach(self, request: web.Request) -> None:
        """Take the socket after the handshake.

        Buffering is bounded by the server's overflow rule, not by the transport.
        """
        self._transport = request.transport
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=1 << 30)
            if self.record is not None:
                self.record.attach(self._transport.get_extra_info("socket"), self.waiting_bytes)

    def peer(self, index: int) -> Peer:
        """Return the connection as faults address it."""
        return Peer(self.id, index, self.user_agent)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the reader has not taken yet."""
        if self._transport is None or self._transport.is_closing():
            return 0
        return int(self._transport.get_write_buffer_size())

    def flush(self) -> None:
        """Write all queued frames, unless the connection is stalled."""
        frames = self.session.frames
        if not frames or self.is_stalled:
            return
        self.session.frames = []
        if self._transport is None or self._transport.is_closing():
            return
        parts: list[bytes] = []
        for frame in frames:
            length = len(frame)
            parts.append(SHORT_HEADERS[length] if length < 2_048 else frame_header(TEXT, length))
            parts.append(frame)
        self.sent += len(frames)
        self._write(b"".join(parts), TEXT, frames)

    def ping(self) -> None:
        """Send the protocol ping with the exchange's body."""
        if (
            (not self.is_stalled or self.stall_pings)
            and self._transport is not None
            and not self._transport.is_closing()
        ):
            self._write(frame_header(PING, len(HEARTBEAT)) + HEARTBEAT, PING, [HEARTBEAT])

    def pong(self, body: bytes) -> None:
        """Answer a client's ping, unless the line is dead for pings too."""
        if (
            (not self.is_stalled or self.stall_pings)
            and self._transport is not None
            and not self._transport.is_closing()
        ):
            self._write(frame_header(PONG, len(body)) + body, PONG, [body])

    def say_goodbye(self) -> None:
        """Close in order: a close frame with code 1001, then the socket."""
        if self._transport is not None and not self._transport.is_closing():
            self.flush()
            code = (1001).to_bytes(2, "big")
            self._write(frame_header(CLOSE, 2) + code, CLOSE, [code])
            self._transport.close()

    def _write(self, content: bytes, first_byte: int, payloads: list[bytes]) -> None:
        self._transport.write(content)
        if self.record is not None:
            self.record.append(first_byte & 0x0F, payloads)

    def abort(self) -> None:
        """Cut the line at once; queued bytes are lost."""
        if self._transport is not None:
            self._transport.abort()

    def describe(self, index: int) -> dict[str, Any]:
        """Return the connection as the control channel shows it."""
        return {
            "id": self.id,
            "index": index,
            "user_agent": self.user_agent,
            "sent": self.sent,
            "dropped": self.dropped,
            "waiting_bytes": self.waiting_bytes,
            "stalled": self.is_stalled,
            "subscriptions": [
                {
                    "sid": each.sid,
                    "channel": each.channel,
                    "seq": each.seq,
                    "markets": None if each.everything else len(each.tickers),
                    "snapshots": each.snapshots,
                }
                for each in self.session.subscriptions.values()
            ],
        }
