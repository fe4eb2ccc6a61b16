"""Turns frames that give no row into dead letters, and records the sequence numbers that they consume. Pure."""

from __future__ import annotations

from kalshi_platform.exchange.parse.messages import PartialFrame, parse_partial
from kalshi_platform.exchange.protocol.dead_letter_limit import DeadLetterLimit
from kalshi_platform.exchange.protocol.sequence import Stream
from kalshi_platform.exchange.protocol.session_model import SessionCounters, SessionOutput
from kalshi_platform.market.names import readable
from kalshi_platform.market.records import NO_STREAM, DeadLetter, SequenceConsumed


class DeadLetterSink:
    """Records the bytes with the reason, counts them and raises an alarm; of a flood it records a sample."""

    def __init__(self, output: SessionOutput, counters: SessionCounters, limit: DeadLetterLimit) -> None:
        self._output = output
        self._counters = counters
        self._limit = limit

    def add(
        self,
        payload: bytes | str,
        received_at_ns: int,
        reason: str,
        detail: str,
        remains: PartialFrame | None = None,
        stream: Stream | None = None,
    ) -> None:
        """Record a frame as a dead letter, or count it."""
        self._counters.dead_letters += 1
        if not self._limit.admits(received_at_ns, reason, len(payload)):
            if self._limit.is_first_counted(received_at_ns, reason):
                self._output.add_alarm(
                    "dead_letters_counted", f"{reason}: so many in a minute that the rest is counted"
                )
            return
        letter = dead_letter(payload, received_at_ns, reason, detail, remains, stream)
        self._output.records.append(letter)
        self._output.add_alarm("dead_letter", f"{reason}: {detail}", (letter.ticker,) if letter.ticker else ())

    def flush_counts(self) -> None:
        """Record how many letters were counted instead of kept."""
        self._output.records += self._limit.counts()

    def unknown_sid(self, sid: int, payload: bytes | str, received_at_ns: int) -> None:
        """Record a frame whose sid was never acknowledged as a dead letter."""
        self.add(payload, received_at_ns, "unknown_sid", f"sid {sid} was not acknowledged", parse_partial(payload))

    def mark_consumed(self, stream: Stream, seq: int) -> None:
        """Record that a number was consumed by a frame that gives no row."""
        if not stream.shared:  # else the response that shares the number has recorded it
            self._output.records.append(SequenceConsumed(stream.id, seq))


def dead_letter(
    payload: bytes | str,
    received_at_ns: int,
    reason: str,
    detail: str,
    remains: PartialFrame | None,
    stream: Stream | None,
) -> DeadLetter:
    """Build a dead letter: the bytes as received, with the fields that could still be read."""
    return DeadLetter(
        received_at_ns,
        reason,
        detail,
        payload.encode(errors="surrogatepass") if isinstance(payload, str) else bytes(payload),
        stream.id if stream else NO_STREAM,
        (remains.seq or 0) if remains else 0,
        stream.channel if stream else None,
        readable(remains.ticker) if remains and remains.ticker else None,
    )
