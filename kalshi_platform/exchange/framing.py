"""Decodes the WebSocket framing of what a server sends (RFC 6455): bytes in, whole messages out. Pure.

The decoder slices all frames out of one socket read, which is fast for many small frames.
"""

from __future__ import annotations

from typing import TypeAlias

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_CONTINUATION = 0x0
_CONTROL = 0x8


class FramingError(Exception):
    """Reports bytes that are no WebSocket stream, or a message larger than allowed."""


Message: TypeAlias = tuple[int, bytes]
"""Opcode and payload of a whole message or a control frame."""


class FrameDecoder:
    """Cuts a byte stream into messages and joins fragments, between which control frames may stand."""

    __slots__ = ("_fragments", "_fragments_opcode", "_fragments_size", "_max_bytes", "_needed", "_rest", "_rest_size")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # The bytes of a frame that is not whole yet, their number, and the number needed to go on.
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._needed = 0
        self._fragments: list[bytes] = []
        self._fragments_opcode = 0
        self._fragments_size = 0

    def feed(self, data: bytes) -> list[Message]:
        """Decode the bytes of one socket read; return the messages that they complete. Raises FramingError."""
        if self._rest:
            self._rest.append(data)
            self._rest_size += len(data)
            if self._rest_size < self._needed:
                return []
            data = b"".join(self._rest)
        messages: list[Message] = []
        at, size, needed = 0, len(data), 2
        while size - at >= 2:
            first, second = data[at], data[at + 1]
            length = second & 0x7F
            start = at + 2
            if length >= 126:
                start += 2 if length == 126 else 8
                if size < start:
                    needed = start - at
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            if first & 0x70 or second & 0x80:
                raise FramingError("a frame with reserved bits or a mask")
            if length > self._max_bytes:
                raise FramingError(f"a frame of {length} bytes, allowed are {self._max_bytes}")
            end = start + length
            if size < end:
                needed = end - at
                break
            if first == 0x81:
                if self._fragments_opcode:
                    raise FramingError("a new message inside a fragmented one")
                messages.append((TEXT, data[start:end]))
            else:
                self._other(first, data[start:end], messages)
            at = end
        self._rest = [data[at:]] if at < size else []
        self._rest_size, self._needed = size - at, needed
        return messages

    def _other(self, first: int, payload: bytes, messages: list[Message]) -> None:
        final, opcode = bool(first & 0x80), first & 0x0F
        if opcode & _CONTROL:
            if not final or len(payload) > 125:
                raise FramingError("a control frame that is fragmented or too long")
            messages.append((opcode, payload))
            return
        if opcode == _CONTINUATION:
            if not self._fragments_opcode:
                raise FramingError("a continuation of nothing")
        elif opcode > BINARY:
            raise FramingError(f"reserved opcode {opcode}")
        elif self._fragments_opcode:
            raise FramingError("a new message inside a fragmented one")
        else:
            self._fragments_opcode = opcode
        self._fragments.append(payload)
        self._fragments_size += len(payload)
        if self._fragments_size > self._max_bytes:
            raise FramingError(f"a message of more than {self._max_bytes} bytes")
        if final:
            messages.append((self._fragments_opcode, b"".join(self._fragments)))
            self._fragments, self._fragments_opcode, self._fragments_size = [], 0, 0
