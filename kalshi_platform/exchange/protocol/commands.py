"""Commands of one session: numbered, encoded, and remembered until they are answered. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from kalshi_platform.exchange.protocol.sequence import BOOK_CHANNEL

CommandKind: TypeAlias = Literal["subscribe", "add", "delete", "snapshot", "proof", "list"]
"""`proof` is a get_snapshot that nobody pending for: the market is followed already."""


@dataclass
class Command:
    """A command that was sent and not answered yet. `channels` and `open_tickers`: what of it is still unanswered."""

    id: int
    kind: CommandKind
    tickers: tuple[str, ...]
    sent_at_ns: int
    channels: set[str] = field(default_factory=set)
    open_tickers: set[str] = field(default_factory=set)
    attempts: int = 0


class CommandLedger:
    """Numbers commands from 1 and knows which are unanswered."""

    def __init__(self) -> None:
        self._pending: dict[int, Command] = {}
        self._next_id = 1
        self._out: list[bytes] = []

    # -- sending

    def subscribe(self, channels: list[str], tickers: tuple[str, ...], now_ns: int) -> Command:
        """Open channels; `tickers` are for the book channel only."""
        params: dict[str, object] = {"channels": channels}
        if tickers:
            # The default of use_yes_price is announced to flip: never leave it to the server.
            params |= {"market_tickers": tickers, "use_yes_price": False, "skip_ticker_ack": True}
        return self._send("subscribe", "subscribe", params, tickers, now_ns, set(channels))

    def update(self, kind: CommandKind, action: str, sid: int | None, tickers: tuple[str, ...], now_ns: int) -> Command:
        """Change the markets of a sid, or ask it for snapshots."""
        params: dict[str, object] = {"sids": [sid], "action": action, "market_tickers": tickers}
        return self._send(kind, "update_subscription", params, tickers, now_ns, set())

    def list_subscriptions(self, now_ns: int) -> Command:
        """Ask which subscriptions are open."""
        return self._send("list", "list_subscriptions", None, (), now_ns, set())

    def take(self) -> list[bytes]:
        """Commands made since the last call, in the order in which they must be sent."""
        out, self._out = self._out, []
        return out

    # -- answers

    def get(self, command_id: int | None) -> Command | None:
        """The unanswered command of this number."""
        return self._pending.get(command_id) if command_id is not None else None

    def done(self, command: Command) -> None:
        """It is answered, or given up."""
        self._pending.pop(command.id, None)

    def all(self) -> list[Command]:
        """Unanswered commands in their order."""
        return list(self._pending.values())

    def opening(self, channel: str) -> list[Command]:
        """Unanswered subscribes of a channel."""
        return [each for each in self._pending.values() if each.kind == "subscribe" and channel in each.channels]

    def forget_books(self) -> None:
        """Drop everything that spoke to the book sid or was about to open it."""
        self._pending = {
            each.id: each
            for each in self._pending.values()
            if each.kind == "list" or (each.kind == "subscribe" and BOOK_CHANNEL not in each.channels)
        }

    def overdue(self, now_ns: int, deadline_ns: int) -> Iterator[Command]:
        """Give up commands that were not answered in time, and yield them."""
        for command in list(self._pending.values()):
            if command.sent_at_ns == 0:
                command.sent_at_ns = now_ns
            if now_ns - command.sent_at_ns >= deadline_ns:
                self._pending.pop(command.id, None)
                yield command

    def adds_in_flight(self) -> int:
        """Unanswered add_markets."""
        return sum(command.kind == "add" for command in self._pending.values())

    def snapshots_in_flight(self) -> int:
        """get_snapshots of which a good part is unanswered: a few mute markets (settled ones answer nothing) must not
        hold up the others.
        """
        asked = [command for command in self._pending.values() if command.kind == "snapshot"]
        return sum(len(command.open_tickers) * 10 > len(command.tickers) for command in asked)

    def _send(
        self,
        kind: CommandKind,
        verb: str,
        params: dict[str, object] | None,
        tickers: tuple[str, ...],
        now_ns: int,
        channels: set[str],
    ) -> Command:
        command = Command(self._next_id, kind, tickers, now_ns, channels)
        self._next_id += 1
        self._pending[command.id] = command
        content: dict[str, object] = {"id": command.id, "cmd": verb}
        if params is not None:
            content["params"] = params
        self._out.append(msgspec.json.encode(content))
        return command
