"""Defines what a connection hands to the journal: frames as received, and marks that say what they belong to.

A mark is an entry of the ledger (`market.records`) that the protocol made between two frames. Frames and marks together
are all that the decoder needs: the same ones give the same rows, today or in a year.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import msgspec

from kalshi_platform.market.records import (
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    SequenceGap,
    SessionClosed,
    SessionOpened,
    SnapshotSource,
    StreamEnded,
    StreamOpened,
    UnknownFrame,
)


class FrameKind(IntEnum):
    """Says what the protocol made of a frame; a number is stored in each journal, so none may change its meaning."""

    DATA = 0
    """A message of its stream: the decoder makes a row of it, or a dead letter."""
    CONTROL = 1
    """A response to a command: no row. It may consume a number."""
    REPEATED = 2
    """The same frame again: it counts for nothing."""
    UNKNOWN_TYPE = 3
    """A message of a type that this version does not know: a dead letter that consumes its number."""
    WRONG_CHANNEL = 4
    """A book in a stream of another channel: a dead letter that consumes its number."""
    UNKNOWN_SID = 5
    """A message of a sid that is not open, and of none that may just be opening: a dead letter."""
    NO_SID = 6
    """A message without sid, and no open stream is of its type: a dead letter."""
    UNREADABLE = 7
    """Not even type and sid could be read, or the frame's number could not: a dead letter."""
    REST_BOOKS = 8
    """The body of an answer with whole books, which the last `RestBooksReceived` mark before it describes."""


class RestBooksReceived(msgspec.Struct, frozen=True, gc=False):
    """Describes the next frame, an answer with whole books: who requested it, when, and the time of its snapshots.

    `snapshot_ts_us` is the poll's minute for 'rest', None for 'rest_recovery', whose books have the answer's time.
    """

    source: SnapshotSource
    requested_at_ns: int
    snapshot_ts_us: int | None = None


class GathererStarted(msgspec.Struct, frozen=True, gc=False):
    """Records that a process began to write here: every session of a former process has ended before it."""

    started_at_ns: int
    gatherer: str
    code_version: str


Mark: TypeAlias = (
    SessionOpened
    | SessionClosed
    | StreamOpened
    | StreamEnded
    | BookSubscriptionStarted
    | BookSubscriptionEnded
    | SequenceGap
    | UnknownFrame
    | RestBooksReceived
    | GathererStarted
)


class FrameBatch(msgspec.Struct, gc=False):
    """Holds frames in the order of their receipt, one list per column, and the marks between them.

    `numbers`: the frame's `seq`; a negative running number of its stream where it carries none; 0 where it counts for
    nothing. `stream_ids`: 0 where the frame is of no stream. `marks`: each with the number of frames before it.
    """

    payloads: list[bytes] = msgspec.field(default_factory=list)
    received_at_ns: list[int] = msgspec.field(default_factory=list)
    stream_ids: list[int] = msgspec.field(default_factory=list)
    numbers: list[int] = msgspec.field(default_factory=list)
    kinds: list[int] = msgspec.field(default_factory=list)
    marks: list[tuple[int, Mark]] = msgspec.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.payloads or self.marks)

    def mark(self, mark: Mark) -> None:
        """Append a mark after the last frame."""
        self.marks.append((len(self.payloads), mark))

    def pop(self) -> FrameBatch:
        """Remove and return everything."""
        popped = FrameBatch(self.payloads, self.received_at_ns, self.stream_ids, self.numbers, self.kinds, self.marks)
        self.payloads, self.received_at_ns, self.stream_ids = [], [], []
        self.numbers, self.kinds, self.marks = [], [], []
        return popped
