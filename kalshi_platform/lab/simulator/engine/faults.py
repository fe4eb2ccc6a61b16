"""Injected faults: which are armed, for whom, how often still, and what each was seen to do. Pure.

Seconds come in as numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from kalshi_platform.errors import PermanentError

# kind → whether it acts at once when posted (True) or waits for its occasion (False)
KINDS: dict[str, bool] = {
    "drop_frame": False,
    "stall": False,
    "refuse_handshake": False,
    "rest_status": False,
    "slow_rest": False,
    "ignore_get_snapshot": False,
    "suppress_lifecycle": False,
    "error_26": False,
    "error_27": False,
    "exchange_pause": False,
    "exchange_inactive": False,
    "clock_skew": False,
    "late_snapshot": False,
    "early_data": False,
    "flood": False,
    "new_type": False,
    "add_field": False,
    "rename_field": False,
    "more_decimals": False,
    "cut": True,
    "forget_subscription": True,
    "unknown_frame": True,
    "error_25": True,
}
# What "once" means where neither count nor seconds is given.
COUNTED = frozenset(
    {
        "drop_frame", "refuse_handshake", "rest_status", "slow_rest", "ignore_get_snapshot", "suppress_lifecycle",
        "error_26", "error_27", "late_snapshot", "early_data",
    }
)  # fmt: skip
MOST_EFFECTS = 10_000


class UnknownFault(PermanentError):
    """A fault that this exchange cannot inject, or parameters that make no sense."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A connection as faults address it; `index` counts the live connections from 0."""

    id: str
    index: int
    user_agent: str


@dataclass(slots=True)
class Fault:
    """One armed fault. `left` counts occasions (None = unlimited), `until` is monotonic seconds (None = no end)."""

    id: int
    kind: str
    params: dict[str, Any]
    left: int | None
    until: float | None
    at_us: int
    effects: list[dict[str, Any]] = field(default_factory=list)
    hits: int = 0
    ended: bool = False

    def active(self, now: float) -> bool:
        """Whether it still acts."""
        return not self.ended and (self.left is None or self.left > 0) and (self.until is None or now < self.until)

    def hit(self, effect: dict[str, Any]) -> None:
        """Note one effect and count it against `left`."""
        self.hits += 1
        if self.left is not None:
            self.left -= 1
        if len(self.effects) < MOST_EFFECTS:
            self.effects.append(effect)

    def selects(self, peer: Peer) -> bool:
        """Whether the fault is meant for this connection.

        `connection` = id or index, `user_agent` = part of that header.
        """
        wanted = self.params.get("connection", "all")
        if isinstance(wanted, list):
            if peer.id not in wanted and peer.index not in wanted:
                return False
        elif wanted != "all" and wanted not in (peer.id, peer.index):
            return False
        agent = self.params.get("user_agent")
        return agent is None or str(agent) in peer.user_agent

    def describe(self, now: float) -> dict[str, Any]:
        """Return the fault as the control channel shows it."""
        return {
            "id": self.id, "kind": self.kind, "params": self.params, "at_us": self.at_us, "active": self.active(now),
            "left": self.left, "hits": self.hits, "effects": self.effects,
        }  # fmt: skip


class FaultBoard:
    """All faults of one exchange, armed and past."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def arm(self, kind: str, params: dict[str, Any], *, now: float, at_us: int) -> Fault:
        """Arm a fault: `count` occasions and/or `seconds`, the rest are its own parameters. Raises `UnknownFault`."""
        if kind not in KINDS:
            raise UnknownFault(f"unknown fault {kind!r}; known: {', '.join(sorted(KINDS))}")
        own = {key: value for key, value in params.items() if key not in ("kind", "count", "seconds")}
        count, seconds = params.get("count"), params.get("seconds")
        if count is not None and (not isinstance(count, int) or count < 1):
            raise UnknownFault("count must be a whole number of at least 1")
        if seconds is not None and (not isinstance(seconds, int | float) or seconds <= 0):
            raise UnknownFault("seconds must be a number above 0")
        if count is None and seconds is None and kind in COUNTED:
            count = 1
        fault = Fault(len(self.faults) + 1, kind, own, count, None if seconds is None else now + seconds, at_us)
        self.faults.append(fault)
        return fault

    def clear(self, kind: str | None = None) -> int:
        """End all faults (of one kind); returns how many were not ended before."""
        ending = [each for each in self.faults if not each.ended and (kind is None or each.kind == kind)]
        for each in ending:
            each.ended = True
        return len(ending)

    def active(self, kind: str, now: float) -> list[Fault]:
        """Return the faults of a kind that still act, oldest first."""
        return [each for each in self.faults if each.kind == kind and each.active(now)]

    def first(self, kind: str, now: float, peer: Peer | None = None) -> Fault | None:
        """Return the oldest acting fault of a kind that selects the connection."""
        return next((each for each in self.active(kind, now) if peer is None or each.selects(peer)), None)

    def rest(self, kind: str, path: str, now: float) -> Fault | None:
        """Return the acting `rest_status` or `slow_rest` whose `path` (a regular expression) occurs in the path."""
        return next(
            (each for each in self.active(kind, now) if re.search(str(each.params.get("path", "")), path)), None
        )

    def skew_us(self, now: float, scope: str) -> int:
        """Return how far the exchange's clock is off now, for `messages` or for the `handshake`."""
        return sum(
            round(float(each.params.get("offset_s", 0)) * 1_000_000)
            for each in self.active("clock_skew", now)
            if each.params.get("scope", "all") in ("all", scope)
        )
