"""What a session has asked for, what was answered, and what must be asked again. Pure; gives commands as JSON bytes.

Times are the caller's `now_ns`. Batches keep to 500 tickers, which is known to work: the exchange's own
limits are unpublished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from kalshi_platform.exchange.stream import BOOK_CHANNEL

NS_PER_S = 1_000_000_000
ERROR_UNKNOWN_SID = 7
ERROR_CHANNEL = 10
ERROR_COMMAND_TIMEOUT = 18
ERROR_OVERFLOW = 25
ERROR_MARKET_LIMIT = 26
ERROR_COMMAND_RATE = 27
TERMINAL_ERRORS = frozenset({ERROR_UNKNOWN_SID, ERROR_CHANNEL, ERROR_OVERFLOW})
RETRY_LATER = frozenset({ERROR_COMMAND_TIMEOUT, ERROR_COMMAND_RATE})


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
    retry_base_s: float = 1.0
    retry_cap_s: float = 60.0


@dataclass(frozen=True)
class Alarm:
    """Something a person or the gatherer should know. `kind` is a short stable word."""

    kind: str
    detail: str
    tickers: tuple[str, ...] = ()


@dataclass
class Command:
    """A command that was sent and not answered yet."""

    id: int
    kind: Literal["subscribe", "add", "delete", "snapshot"]
    tickers: tuple[str, ...]
    sent_at_ns: int
    channels: set[str] = field(default_factory=set)
    open_tickers: set[str] = field(default_factory=set)
    attempts: int = 0


@dataclass
class _Wait:
    """A wanted market without a valid snapshot. `since_ns` None: its command is not made yet."""

    after_loss: bool
    since_ns: int | None = None
    asked: int = 0


class Subscriptions:
    """Book markets and channels of one session: wanted, asked, followed, lost."""

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self._batch = config.batch_size
        self.now_ns = 0
        self.book_sid: int | None = None
        self.wanted: dict[str, int] = {}
        self.waits: dict[str, _Wait] = {}
        self.unanswered: set[str] = set()
        self._channels: set[str] = set()
        self._pending: dict[int, Command] = {}
        self._to_add: dict[str, None] = {}
        self._to_delete: dict[str, None] = {}
        self._to_ask: dict[str, None] = {}
        self._deleting: set[str] = set()
        self._add_after_delete: dict[str, int] = {}
        self._deleted_by: dict[str, int] = {}
        self._later: list[tuple[int, Callable[[], None]]] = []
        self._paused_until_ns = 0
        self._failures = 0
        self._last_failure_ns = 0
        self._next_id = 1
        self._out: list[bytes] = []

    # -- what the caller wants

    def want_books(self, markets: Mapping[str, int]) -> None:
        """Follow these markets. One whose delete is not acknowledged yet is added after that, never before:
        a snapshot between the two would start a membership that the server does not serve."""
        for ticker, exchange_index in markets.items():
            if ticker in self._deleting or ticker in self._to_delete:
                self._add_after_delete[ticker] = exchange_index
            elif ticker not in self.wanted:
                self._want(ticker, exchange_index, after_loss=False)
        self.pump()

    def unwant_books(self, tickers: Iterable[str]) -> None:
        """Stop following these markets."""
        for ticker in tickers:
            self._add_after_delete.pop(ticker, None)
            if self.wanted.pop(ticker, None) is None:
                continue
            self.waits.pop(ticker, None)
            self.unanswered.discard(ticker)
            self._to_ask.pop(ticker, None)
            if self._to_add.pop(ticker, 0) == 0:
                self._to_delete[ticker] = None
        self.pump()

    def want_channels(self, channels: Iterable[str]) -> None:
        """Open channels that need no market list."""
        fresh = [channel for channel in dict.fromkeys(channels) if channel not in self._channels]
        if fresh:
            self._channels.update(fresh)
            self._subscribe(fresh, ())

    # -- what the exchange said

    def opened(self, channel: str, sid: int, command_id: int | None) -> None:
        """A `subscribed` came, or an `ok` that merged into an open channel."""
        command = self._pending.get(command_id) if command_id is not None else None
        if command is not None and command.kind == "subscribe":
            command.channels.discard(channel)
            if not command.channels:
                del self._pending[command.id]
        if channel == BOOK_CHANNEL:
            self.book_sid = sid
            # An answer without our id still opens the channel: no second subscribe may follow.
            for other in [c for c in self._pending.values() if c.kind == "subscribe" and BOOK_CHANNEL in c.channels]:
                del self._pending[other.id]
            self.pump()

    def answered(self, command_id: int | None) -> Command | None:
        """An `ok` came; return the command it belongs to."""
        command = self._pending.get(command_id) if command_id is not None else None
        if command is None or command.kind == "snapshot" or len(command.channels) > 1:
            return command
        del self._pending[command.id]
        if command.kind == "delete":
            self._deleted(command.tickers)
        self.pump()
        return command

    def refused(self, command_id: int | None, code: int, message: str, tickers: tuple[str, ...]) -> list[Alarm]:
        """An `error` came that ends no stream."""
        command = self._pending.pop(command_id, None) if command_id is not None else None
        named = tuple(ticker for ticker in tickers if ticker in self.wanted)
        detail = f"error {code}: {message[:200]}"
        if command is None:
            self.unanswered.update(named)
            return [Alarm("error", detail, tickers)]
        if code == ERROR_MARKET_LIMIT and len(command.tickers) > 1:
            self._batch = max(1, min(self._batch, len(command.tickers)) // 2)
            self._again(command)
            self.pump()
            return []
        if code in RETRY_LATER:
            self._after_delay(lambda: self._again(command))
            return []
        lost = named or tuple(ticker for ticker in command.tickers if ticker in self.wanted)
        self.unanswered.update(lost)
        if command.kind == "delete":
            self._deleted(command.tickers)
        elif named:
            command.tickers = tuple(ticker for ticker in command.tickers if ticker not in named)
            self._again(command)
        self._channels.difference_update(command.channels)
        self.pump()
        return [Alarm("error", detail, tickers or lost)]

    def merged_channel(self, command_id: int | None) -> str | None:
        """The channel of an unanswered subscribe of this id, if it is for one channel."""
        command = self._pending.get(command_id) if command_id is not None else None
        if command is None or command.kind != "subscribe" or len(command.channels) != 1:
            return None
        return next(iter(command.channels))

    def is_book_command(self, command_id: int | None) -> bool:
        """Whether an unanswered command of this id speaks to the book sid."""
        command = self._pending.get(command_id) if command_id is not None else None
        return command is not None and command.kind != "subscribe"

    def may_follow(self, ticker: str, command_id: int | None) -> bool:
        """Whether a snapshot may start a membership: wanted, and not an answer to something asked before a delete."""
        if ticker not in self.wanted:
            return False
        return command_id is None or command_id > self._deleted_by.get(ticker, 0)

    def snapshot_came(self, ticker: str, command_id: int | None) -> None:
        """The market has a valid snapshot."""
        self.waits.pop(ticker, None)
        self._to_ask.pop(ticker, None)
        self.unanswered.discard(ticker)
        command = self._pending.get(command_id) if command_id is not None else None
        if command is not None and command.kind == "snapshot":
            command.open_tickers.discard(ticker)
            if not command.open_tickers:
                del self._pending[command.id]
                self.pump()

    def gap_seen(self, members: Iterable[str]) -> None:
        """Book frames are missing: members need a new snapshot; one under way may have been among them."""
        for wait in self.waits.values():
            if wait.since_ns is not None:
                wait.after_loss = True
        self.lost(members, ask_now=True)

    def lost(self, tickers: Iterable[str], *, ask_now: bool) -> None:
        """These markets lost a frame: they need a new snapshot, at once or at the next deadline."""
        for ticker in tickers:
            if ticker in self.wanted and ticker not in self.waits:
                self.waits[ticker] = _Wait(after_loss=True, since_ns=self.now_ns)
                if ask_now:
                    self._to_ask[ticker] = None
        self.pump()

    def stream_ended(self, channel: str) -> None:
        """The subscription is dead: subscribe afresh, later each time if it keeps dying."""
        if channel != BOOK_CHANNEL:
            self._channels.discard(channel)
            self._after_delay(lambda: self.want_channels([channel]), first_at_once=True)
            return
        self.book_sid = None
        # The commands named a sid that is gone; the subscription that comes holds every wanted market.
        self._pending = {
            command.id: command
            for command in self._pending.values()
            if command.kind == "subscribe" and BOOK_CHANNEL not in command.channels
        }
        self._to_ask.clear()
        gone = (*self._to_delete, *self._deleting)
        self._to_delete.clear()
        self._deleted(gone)
        for ticker in self.wanted:
            wait = self.waits.setdefault(ticker, _Wait(after_loss=True))
            wait.since_ns = None
            self._to_add[ticker] = None
        self._paused_until_ns = self.now_ns + self._delay_ns(first_at_once=True)
        self.pump()

    # -- time and output

    def tick(self) -> list[Alarm]:
        """Look at every deadline."""
        now = self.now_ns
        alarms = self._unanswered_commands(now) + self._missing_snapshots(now)
        due = [action for at, action in self._later if at <= now]
        if due:
            self._later = [entry for entry in self._later if entry[0] > now]
            for action in due:
                action()
        self.pump()
        return alarms

    def take(self) -> list[bytes]:
        """The commands made since the last call, in the order in which they must be sent."""
        out, self._out = self._out, []
        return out

    def pump(self) -> None:
        """Make commands of what waits, as far as the sid is known and not too many are unanswered."""
        if self.now_ns < self._paused_until_ns:
            return
        if self.book_sid is None:
            asked = any(BOOK_CHANNEL in command.channels for command in self._pending.values())
            if self._to_add and not asked:
                self._subscribe([BOOK_CHANNEL], self._cut(self._to_add))
            return
        while self._to_delete:
            batch = self._cut(self._to_delete)
            self._deleting.update(batch)
            command = self._update("delete", "delete_markets", batch)
            self._deleted_by.update(dict.fromkeys(batch, command.id))
        while self._to_add and self._adds_in_flight() < self._config.adds_in_flight:
            self._update("add", "add_markets", self._cut(self._to_add))
        while self._to_ask and self._snapshots_in_flight() < self._config.snapshots_in_flight:
            command = self._update("snapshot", "get_snapshot", self._cut(self._to_ask))
            command.open_tickers = set(command.tickers)

    # -- inside

    def _want(self, ticker: str, exchange_index: int, *, after_loss: bool) -> None:
        self.wanted[ticker] = exchange_index
        self.waits[ticker] = _Wait(after_loss)
        self._to_add[ticker] = None

    def _deleted(self, tickers: Iterable[str]) -> None:
        for ticker in tickers:
            self._deleting.discard(ticker)
            exchange_index = self._add_after_delete.pop(ticker, None)
            if exchange_index is not None:
                self._want(ticker, exchange_index, after_loss=False)

    def _again(self, command: Command) -> None:
        """Put the markets of a refused command back into its queue."""
        if command.kind == "delete":
            self._deleting.difference_update(command.tickers)
            self._to_delete.update(dict.fromkeys(command.tickers))
            return
        if command.kind == "subscribe" and BOOK_CHANNEL not in command.channels:
            self._channels.difference_update(command.channels)
            self.want_channels(command.channels)
            return
        queue = self._to_ask if command.kind == "snapshot" else self._to_add
        for ticker in command.tickers:
            if ticker in self.wanted and (command.kind != "snapshot" or ticker in self.waits):
                queue[ticker] = None

    def _delay_ns(self, *, first_at_once: bool) -> int:
        """Doubles with every failure; begins anew after a calm of ten times the cap."""
        cap_ns = int(self._config.retry_cap_s * NS_PER_S)
        if self.now_ns - self._last_failure_ns > 10 * cap_ns:
            self._failures = 0
        self._last_failure_ns = self.now_ns
        self._failures += 1
        if first_at_once and self._failures == 1:
            return 0
        return min(cap_ns, int(self._config.retry_base_s * NS_PER_S) << min(self._failures - 1, 20))

    def _after_delay(self, action: Callable[[], None], *, first_at_once: bool = False) -> None:
        delay_ns = self._delay_ns(first_at_once=first_at_once)
        if delay_ns:
            self._later.append((self.now_ns + delay_ns, action))
        else:
            action()

    def _unanswered_commands(self, now: int) -> list[Alarm]:
        deadline_ns = int(self._config.ack_deadline_s * NS_PER_S)
        alarms: list[Alarm] = []
        for command in list(self._pending.values()):
            if command.sent_at_ns == 0:
                command.sent_at_ns = now
            if now - command.sent_at_ns < deadline_ns:
                continue
            del self._pending[command.id]
            if command.kind == "snapshot":
                continue  # each of its markets has a deadline of its own
            alarms.append(Alarm("command_unanswered", f"{command.kind} {command.id}", command.tickers))
            if command.kind == "delete" and command.attempts >= self._config.attempts:
                self._deleted(command.tickers)
                continue
            self._resend(command)
        return alarms

    def _resend(self, command: Command) -> None:
        if command.kind == "delete":
            again = self._update("delete", "delete_markets", command.tickers)
            self._deleted_by.update(dict.fromkeys(command.tickers, again.id))
            again.attempts = command.attempts + 1
        else:
            self._again(command)

    def _missing_snapshots(self, now: int) -> list[Alarm]:
        deadline_ns = int(self._config.snapshot_deadline_s * NS_PER_S)
        reported: list[str] = []
        for ticker, wait in self.waits.items():
            if wait.since_ns == 0:
                wait.since_ns = now
            if wait.since_ns is None or now - wait.since_ns < deadline_ns or ticker in self._to_ask:
                continue
            wait.since_ns = now
            if wait.asked < self._config.attempts:
                wait.asked += 1
                self._to_ask[ticker] = None
            elif ticker not in self.unanswered:
                self.unanswered.add(ticker)
                reported.append(ticker)
        if not reported:
            return []
        return [Alarm("snapshot_unanswered", f"{len(reported)} markets sent no snapshot", tuple(reported))]

    def _adds_in_flight(self) -> int:
        return sum(command.kind == "add" for command in self._pending.values())

    def _snapshots_in_flight(self) -> int:
        """A few mute markets (settled ones answer nothing) must not hold up the others."""
        asked = [command for command in self._pending.values() if command.kind == "snapshot"]
        return sum(len(command.open_tickers) * 10 > len(command.tickers) for command in asked)

    def _cut(self, queue: dict[str, None]) -> tuple[str, ...]:
        batch = tuple(ticker for ticker, _ in zip(queue, range(self._batch), strict=False))
        for ticker in batch:
            del queue[ticker]
            wait = self.waits.get(ticker)
            if wait is not None and wait.since_ns is None:
                wait.since_ns = self.now_ns
        return batch

    def _subscribe(self, channels: list[str], tickers: tuple[str, ...]) -> Command:
        params: dict[str, object] = {"channels": channels}
        if tickers:
            # The default of use_yes_price is announced to flip: never leave it to the server.
            params |= {"market_tickers": tickers, "use_yes_price": False, "skip_ticker_ack": True}
        return self._send("subscribe", "subscribe", params, tickers, set(channels))

    def _update(
        self, kind: Literal["subscribe", "add", "delete", "snapshot"], action: str, tickers: tuple[str, ...]
    ) -> Command:
        params: dict[str, object] = {"sids": [self.book_sid], "action": action, "market_tickers": tickers}
        return self._send(kind, "update_subscription", params, tickers, set())

    def _send(
        self,
        kind: Literal["subscribe", "add", "delete", "snapshot"],
        verb: str,
        params: dict[str, object],
        tickers: tuple[str, ...],
        channels: set[str],
    ) -> Command:
        command = Command(self._next_id, kind, tickers, self.now_ns, channels)
        self._next_id += 1
        self._pending[command.id] = command
        self._out.append(msgspec.json.encode({"id": command.id, "cmd": verb, "params": params}))
        return command
