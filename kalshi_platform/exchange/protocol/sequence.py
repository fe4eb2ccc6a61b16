"""Classifies the sequence numbers of one stream. Pure.

`seq` counts per sid, over all markets of the sid: measured on the demo exchange (2026-05-26), because asyncapi.yaml of
docs.kalshi.com (read 2026-11-22) does not document its scope.
"""

from __future__ import annotations

from enum import Enum

BOOK_CHANNEL = "orderbook_delta"


class SequenceStatus(Enum):
    """Names the meaning of a sequence number."""

    NEXT = "next"
    GAP = "gap"
    """Frames between the last number and this one were lost."""
    REPEAT = "repeat"
    """The same frame again."""
    SHARED = "shared"
    """A control frame carries the same number; Kalshi does not document whether responses consume numbers."""
    RESET = "reset"
    """The number went back, or one number came with two contents: the server restarted the count."""


class Stream:
    """Holds the state of one sid of one session, from its first frame to its end."""

    __slots__ = (
        "_unnumbered",
        "channel",
        "first_known",
        "followed",
        "id",
        "is_book",
        "last_control",
        "last_payload",
        "last_seq",
        "newest_start",
        "sid",
        "unknown",
    )

    def __init__(self, stream_id: int, sid: int, channel: str, *, first_known: bool) -> None:
        """Start a stream; with `first_known` it is new on the server too, so that its first number must be 1."""
        self.id = stream_id
        self.sid = sid
        self.channel = channel
        self.first_known = first_known
        self.last_seq = 0
        self.followed: dict[str, int] = {}
        self.newest_start = 0
        """Number of the latest snapshot that started a book subscription."""
        self.unknown: dict[tuple[str, str], int] = {}
        """(Unknown type, the market it named or "") → the last such number that was recorded."""
        self.last_payload: bytes = b""
        self.last_control = False
        self._unnumbered = 0
        self.is_book = channel == BOOK_CHANNEL

    def classify(self, seq: int, payload: bytes, *, control: bool) -> SequenceStatus:
        """Compare `seq` with the last number, without changing the state (see `advance`)."""
        last = self.last_seq
        if seq == last + 1:
            return SequenceStatus.NEXT
        if last == 0:
            return SequenceStatus.GAP if self.first_known and seq > 1 else SequenceStatus.NEXT
        if seq > last:
            return SequenceStatus.GAP
        if seq < last:
            return SequenceStatus.RESET
        if control or self.last_control:
            return SequenceStatus.SHARED
        return SequenceStatus.REPEAT if payload == self.last_payload else SequenceStatus.RESET

    def advance(self, seq: int, payload: bytes, *, control: bool) -> None:
        """Set `seq` as the last number."""
        self.last_seq = seq
        self.last_payload = payload
        self.last_control = control

    def unnumbered(self) -> int:
        """Return the next negative running number, for rows of frames that carry no seq."""
        self._unnumbered -= 1
        return self._unnumbered
