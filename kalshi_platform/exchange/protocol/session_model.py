"""Defines settings, output, alarms and counters of a session. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from kalshi_platform.market.frames import FrameBatch

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Holds limits and deadlines of one session."""

    batch_size: int = 500
    """Most tickers in one command."""
    adds_in_flight: int = 4
    """Most unanswered add_markets commands at a time."""
    snapshots_in_flight: int = 20
    """Most get_snapshot commands at a time of which more than a tenth is unanswered."""
    ack_deadline_s: float = 10.0
    """Seconds after which an unanswered command is sent again."""
    snapshot_deadline_s: float = 10.0
    """Seconds after which a market without a snapshot is requested by get_snapshot."""
    attempts: int = 1
    """Repetitions before the market is reported."""
    proof_every_s: float = 10.0
    """After unknown messages: seconds between two get_snapshot commands of at most `batch_size` markets."""
    proof_again_s: float = 60.0
    """…and between two for one market."""
    retry_base_s: float = 1.0
    retry_cap_s: float = 60.0


@dataclass(frozen=True)
class Alarm:
    """Reports an event that needs attention; `kind` is a short stable word."""

    kind: str
    detail: str
    tickers: tuple[str, ...] = ()


class SessionOutput(msgspec.Struct, gc=False):
    """Collects what a session returns: frames with the marks between them, commands in sending order, and alarms.

    The parts of a session append to one of these; each call of the session returns what has accumulated.
    """

    batch: FrameBatch = msgspec.field(default_factory=FrameBatch)
    commands: list[bytes] = msgspec.field(default_factory=list)
    alarms: list[Alarm] = msgspec.field(default_factory=list)

    def add_alarm(self, kind: str, detail: str, tickers: tuple[str, ...] = ()) -> None:
        """Append an alarm."""
        self.alarms.append(Alarm(kind, detail, tickers))

    def pop(self) -> SessionOutput:
        """Remove and return everything."""
        output = SessionOutput(self.batch.pop(), self.commands, self.alarms)
        self.commands, self.alarms = [], []
        return output


@dataclass
class SessionCounters:
    """Counts since the start of the session."""

    frames: int = 0
    duplicates: int = 0
    gaps: int = 0
