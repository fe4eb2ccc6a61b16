"""Settings, output, alarms and counters of a session. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from kalshi_platform.exchange.protocol.dead_letter_limit import DEAD_LETTERS_PER_MINUTE
from kalshi_platform.market.records import Record

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Limits and deadlines of one session."""

    batch_size: int = 500
    """Tickers in one command."""
    adds_in_flight: int = 4
    """Unanswered add_markets commands at a time."""
    snapshots_in_flight: int = 20
    """get_snapshot commands at a time of which a good part is still unanswered."""
    ack_deadline_s: float = 10.0
    """A command not answered by then is sent again."""
    snapshot_deadline_s: float = 10.0
    """A market without a snapshot by then is asked for with get_snapshot."""
    attempts: int = 1
    """How often that is repeated before the market is reported."""
    held_frames: int = 10_000
    """Frames kept for a sid that was not acknowledged yet."""
    held_for_s: float = 30.0
    proof_every_s: float = 10.0
    """After unknown messages: one get_snapshot of at most `batch_size` markets in that time."""
    proof_again_s: float = 60.0
    """…and of one market in that time."""
    dead_letters_per_minute: int = DEAD_LETTERS_PER_MINUTE
    """Dead letters of a minute and reason that are kept; the others are counted."""
    retry_base_s: float = 1.0
    retry_cap_s: float = 60.0


@dataclass(frozen=True)
class Alarm:
    """Something a person or the gatherer should know. `kind` is a short stable word."""

    kind: str
    detail: str
    tickers: tuple[str, ...] = ()


class SessionOutput(msgspec.Struct, gc=False):
    """What a session gives back: records in writing order, commands in sending order, and alarms.

    The parts of a session append to one of these; each call of the session hands over what has come together.
    """

    records: list[Record] = msgspec.field(default_factory=list)
    commands: list[bytes] = msgspec.field(default_factory=list)
    alarms: list[Alarm] = msgspec.field(default_factory=list)

    def add_alarm(self, kind: str, detail: str, tickers: tuple[str, ...] = ()) -> None:
        """Append an alarm."""
        self.alarms.append(Alarm(kind, detail, tickers))

    def take_records(self) -> list[Record]:
        """Return the records and keep none."""
        records, self.records = self.records, []
        return records

    def take(self) -> SessionOutput:
        """Return all of it and keep nothing."""
        taken = SessionOutput(self.records, self.commands, self.alarms)
        self.records, self.commands, self.alarms = [], [], []
        return taken


@dataclass
class SessionCounters:
    """Totals since the session began."""

    frames: int = 0
    duplicates: int = 0
    gaps: int = 0
    dead_letters: int = 0
    scale_contradictions: int = 0
    """Books that cannot be on the scale that was asked for (see `price_scale`)."""
