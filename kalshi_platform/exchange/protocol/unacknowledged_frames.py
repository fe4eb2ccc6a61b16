"""Buffers frames of sids that were not acknowledged yet: data may arrive before its `subscribed`. Pure."""

from __future__ import annotations

from typing import TypeAlias

LIMIT_BYTES = 32 * 1024**2
BufferedFrame: TypeAlias = tuple[bytes | str, int]
"""Payload and receive time."""


class UnacknowledgedFrames:
    """Keeps at most `limit` frames of together `limit_bytes`, in their order by sid."""

    def __init__(self, limit: int, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._by_sid: dict[int, list[BufferedFrame]] = {}
        self._since_ns: dict[int, int] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._by_sid)

    def add(self, sid: int, payload: bytes | str, received_at_ns: int, now_ns: int) -> bool:
        """Buffer a frame; return False if there is no room. `now_ns`: of the clock of `pop_older`."""
        if self._count >= self._limit or self._bytes + len(payload) > self._limit_bytes:
            return False
        self._bytes += len(payload)
        self._by_sid.setdefault(sid, []).append((payload, received_at_ns))
        self._since_ns.setdefault(sid, now_ns)
        self._count += 1
        return True

    def pop(self, sid: int) -> list[BufferedFrame]:
        """Remove and return the frames of a sid that was acknowledged."""
        frames = self._by_sid.pop(sid, [])
        self._since_ns.pop(sid, None)
        self._count -= len(frames)
        self._bytes -= sum(len(payload) for payload, _ in frames)
        return frames

    def pop_older(self, before_ns: int | None) -> list[tuple[int, BufferedFrame]]:
        """Remove and return, with their sid, the frames of sids whose first frame came before a time (None: all)."""
        old = [sid for sid, since_ns in self._since_ns.items() if before_ns is None or since_ns < before_ns]
        return [(sid, frame) for sid in old for frame in self.pop(sid)]
