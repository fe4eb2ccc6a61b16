"""Numbers and encodes the commands of one session, and keeps them until they are answered. Pure.

Source: docs.kalshi.com, asyncapi.yaml (read 2026-11-22).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from kalshi_platform.exchange.protocol.sequence import BOOK_CHANNEL

CommandKind: TypeAlias = Literal["subscribe", "add", "delete", "snapshot", "proof", "list"]
"""`proof` is a get_snapshot that no pending snapshot needs: the market's book is subscribed already."""


@dataclass
class Command:
    """Describes a command that was sent and is not answered yet.

    `channels` and `open_tickers` hold what of it is still unanswered.
    """

    id: int
    kind: CommandKind
    tickers: tuple[str, ...]
    sent_at_ns: int
    channels: set[str] = field(default_factory=set)
    open_tickers: set[str] = field(default_factory=set)
    attempts: int = 0


class PendingCommands:
    """Numbers commands from 1 and keeps the unanswered ones."""

    def __init__(self) -> None:
        self._pending: dict[int, Command] = {}
        self._next_id = 1
        self._out: list[bytes] = []

    # -- sending

    def subscribe(self, channels: list[str], tickers: tuple[str, ...], now_ns: int) -> Command:
        """Make a subscribe command for channels; `tickers` are for the book channel only."""
        params: dict[str, object] = {"channels": channels}
        if tickers:
            # The default of use_yes_price is announced to flip: never leave it to the server.
            params |= {"market_tickers": tickers, "use_yes_price": False, "skip_ticker_ack": True}
        return self._send("subscribe", "subscribe", params, tickers, now_ns, set(channels))

    def update(self, kind: CommandKind, action: str, sid: int | None, tickers: tuple[str, ...], now_ns: int) -> Command:
        """Make a command that changes the markets of a sid, or requests snapshots from it."""
        params: dict[str, object] = {"sids": [sid], "action": action, "market_tickers": tickers}
        return self._send(kind, "update_subscription", params, tickers, now_ns, set())

    def list_subscriptions(self, now_ns: int) -> Command:
        """Make a command that lists the open subscriptions."""
        return self._send("list", "list_subscriptions", None, (), now_ns, set())

    def pop_commands(self) -> list[bytes]:
        """Return the commands made since the last call, in the order in which they must be sent."""
        out, self._out = self._out, []
        return out

    # -- answers

    def get(self, command_id: int | None) -> Command | None:
        """Return the unanswered command of this number, or None."""
        return self._pending.get(command_id) if command_id is not None else None

    def resolve(self, command: Command) -> None:
        """Remove a command that is answered or given up."""
        self._pending.pop(command.id, None)

    def all(self) -> list[Command]:
        """Return the unanswered commands in their order."""
        return list(self._pending.values())

    def pending_subscribes(self, channel: str) -> list[Command]:
        """Return the unanswered subscribe commands of a channel."""
        return [each for each in self._pending.values() if each.kind == "subscribe" and channel in each.channels]

    def drop_book_commands(self) -> None:
        """Drop every command to the book sid, and those that were to open it."""
        self._pending = {
            each.id: each
            for each in self._pending.values()
            if each.kind == "list" or (each.kind == "subscribe" and BOOK_CHANNEL not in each.channels)
        }

    def pop_overdue(self, now_ns: int, deadline_ns: int) -> Iterator[Command]:
        """Remove and yield the commands that were not answered in time."""
        for command in list(self._pending.values()):
            if command.sent_at_ns == 0:
                command.sent_at_ns = now_ns
            if now_ns - command.sent_at_ns >= deadline_ns:
                self._pending.pop(command.id, None)
                yield command

    def adds_in_flight(self) -> int:
        """Return the number of unanswered add_markets commands."""
        return sum(command.kind == "add" for command in self._pending.values())

    def snapshots_in_flight(self) -> int:
        """Return the number of get_snapshot commands of which more than a tenth is unanswered.

        A few unresponsive markets (settled ones answer nothing) must not delay the others.
        """
        sent = [command for command in self._pending.values() if command.kind == "snapshot"]
        return sum(len(command.open_tickers) * 10 > len(command.tickers) for command in sent)

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
