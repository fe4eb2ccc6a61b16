"""Frames that become no row: dead letters, and the numbers that they took. Pure."""

from __future__ import annotations

from kalshi_platform.exchange.parse.messages import Remains, salvage
from kalshi_platform.exchange.protocol.dead_letter_limit import LetterLimit
from kalshi_platform.exchange.protocol.records import dead_letter
from kalshi_platform.exchange.protocol.sequence import Stream
from kalshi_platform.exchange.protocol.session_model import SessionCounters
from kalshi_platform.exchange.protocol.session_output import Outbox
from kalshi_platform.market.records import SequenceConsumed


class Burial:
    """Keeps the bytes with the reason, counts and raises an alarm. Of a flood it keeps a sample."""

    def __init__(self, outbox: Outbox, counters: SessionCounters, limit: LetterLimit) -> None:
        self._outbox = outbox
        self._counters = counters
        self._limit = limit

    def bury(
        self,
        payload: bytes | str,
        received_at_ns: int,
        reason: str,
        detail: str,
        remains: Remains | None = None,
        stream: Stream | None = None,
    ) -> None:
        """Make a dead letter of a frame."""
        self._counters.dead_letters += 1
        if not self._limit.admits(received_at_ns, reason, len(payload)):
            if self._limit.is_first_counted(received_at_ns, reason):
                self._outbox.alarm("dead_letters_counted", f"{reason}: so many in a minute that the rest is counted")
            return
        letter = dead_letter(payload, received_at_ns, reason, detail, remains, stream)
        self._outbox.records.append(letter)
        self._outbox.alarm("dead_letter", f"{reason}: {detail}", (letter.ticker,) if letter.ticker else ())

    def tell_counts(self) -> None:
        """Put on record how many letters were counted and not kept."""
        self._outbox.records += self._limit.counts()

    def unknown_sid(self, sid: int, payload: bytes | str, received_at_ns: int) -> None:
        """Make a dead letter of a frame whose sid nobody acknowledged."""
        self.bury(payload, received_at_ns, "unknown_sid", f"sid {sid} was not acknowledged", salvage(payload))

    def consumed(self, stream: Stream, seq: int) -> None:
        """Say that a number was taken by a frame that gives no row."""
        if not stream.shared:  # else the answer that shares the number has said so
            self._outbox.records.append(SequenceConsumed(stream.id, seq))
