"""What a session has asked for, what was answered, and what must be asked again. Pure; gives commands as JSON bytes.

Times are the caller's `now_ns`, of a clock that nobody sets. Batches keep to 500 tickers, which is known to work: the
exchange's own limits are unpublished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kalshi_platform.exchange.protocol.commands import Command, CommandLedger
from kalshi_platform.exchange.protocol.error_codes import Reaction, reaction_to
from kalshi_platform.exchange.protocol.pending_snapshots import SnapshotWaits
from kalshi_platform.exchange.protocol.proofs import Proofs
from kalshi_platform.exchange.protocol.retry_queue import Retries
from kalshi_platform.exchange.protocol.sequence import BOOK_CHANNEL
from kalshi_platform.exchange.protocol.session_model import NS_PER_S, Alarm, SessionConfig


class Subscriptions:
    """Book markets and channels of one session: wanted, asked, followed, lost."""

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self._batch = config.batch_size
        self._adds = config.adds_in_flight
        self._snapshots = config.snapshots_in_flight
        self.now_ns = 0
        self.book_sid: int | None = None
        self.wanted: dict[str, int] = {}
        self.waits = SnapshotWaits(int(config.snapshot_deadline_s * NS_PER_S), config.attempts)
        self._proofs = Proofs(int(config.proof_every_s * NS_PER_S), int(config.proof_again_s * NS_PER_S))
        self._commands = CommandLedger()
        self._retries = Retries(int(config.retry_base_s * NS_PER_S), int(config.retry_cap_s * NS_PER_S))
        self._channels: set[str] = set()
        self._to_add: dict[str, None] = {}
        self._to_delete: dict[str, None] = {}
        self._deleting: set[str] = set()
        self._add_after_delete: dict[str, int] = {}
        self._deleted_by: dict[str, int] = {}
        self._paused_until_ns = 0
        self._full_until_ns = 0

    # -- what the caller wants

    def want_books(self, markets: Mapping[str, int]) -> None:
        """Follow these markets. One whose delete is not acknowledged yet is added after that, never before:
        a snapshot between the two would start a membership that the server does not serve."""
        for ticker, exchange_index in markets.items():
            if ticker in self._deleting or ticker in self._to_delete:
                self._add_after_delete[ticker] = exchange_index
            elif ticker not in self.wanted:
                self._want(ticker, exchange_index)
        self.pump()

    def unwant_books(self, tickers: Iterable[str]) -> None:
        """Stop following these markets."""
        for ticker in tickers:
            self._add_after_delete.pop(ticker, None)
            if self.wanted.pop(ticker, None) is None:
                continue
            self.waits.forget(ticker)
            self._proofs.forget(ticker)
            if self._to_add.pop(ticker, 0) == 0:
                self._to_delete[ticker] = None
        self.pump()

    def want_channels(self, channels: Iterable[str]) -> None:
        """Open channels that need no market list."""
        fresh = [channel for channel in dict.fromkeys(channels) if channel not in self._channels]
        if fresh:
            self._channels.update(fresh)
            self._commands.subscribe(fresh, (), self.now_ns)

    def ask_what_is_open(self) -> int:
        """Ask for the open subscriptions; return the number of the command."""
        return self._commands.list_subscriptions(self.now_ns).id

    # -- what the exchange said

    def opened(self, channel: str, sid: int, command_id: int | None) -> None:
        """A `subscribed` came, or an `ok` that merged into an open channel."""
        command = self._commands.get(command_id)
        if command is not None and command.kind == "subscribe":
            command.channels.discard(channel)
            if not command.channels:
                self._commands.done(command)
        if channel == BOOK_CHANNEL:
            self.book_sid = sid
            # An answer without our id still opens the channel: no second subscribe may follow.
            for other in self._commands.opening(BOOK_CHANNEL):
                self._commands.done(other)
            self.pump()

    def answered(self, command_id: int | None) -> Command | None:
        """An `ok` came; return the command it belongs to."""
        command = self._commands.get(command_id)
        if command is None or command.kind in ("snapshot", "proof") or len(command.channels) > 1:
            return command
        self._commands.done(command)
        if command.kind == "delete":
            self._deleted(command.tickers)
        self.pump()
        return command

    def refused(self, command_id: int | None, code: int, message: str, tickers: tuple[str, ...]) -> list[Alarm]:
        """An `error` came that ends no stream."""
        command = self._commands.get(command_id)
        named = tuple(ticker for ticker in tickers if ticker in self.wanted)
        detail = f"error {code}: {message[:200]}"
        if command is None:
            self.waits.refuse(named)
            return [Alarm("error", detail, tickers)]
        self._commands.done(command)
        if command.kind == "list":
            return [Alarm("error", detail)]
        reaction = reaction_to(code)
        if reaction is Reaction.HALVE_BATCH and len(command.tickers) > 1:
            self._batch = max(1, min(self._batch, len(command.tickers)) // 2)
            self._again(command)
            self.pump()
            return []
        if reaction is Reaction.HALVE_BATCH and command.kind in ("add", "subscribe"):
            return self._full(command, detail)
        if reaction in (Reaction.RETRY_LATER, Reaction.HALVE_PACE):
            if reaction is Reaction.HALVE_PACE:
                self._adds, self._snapshots = max(1, self._adds // 2), max(1, self._snapshots // 2)
            self._retries.after_failure(self.now_ns, lambda: self._again(command))
            return []
        if reaction is Reaction.RETRY_RARELY:
            self._retries.after_cap(self.now_ns, lambda: self._again(command))
            return [Alarm("not_authorised", f"{detail}; check the key's scope and environment", tickers)]
        return self._rejected(command, named, detail, tickers)

    def merged_channel(self, command_id: int | None) -> str | None:
        """The channel of an unanswered subscribe of this id, if it is for one channel."""
        command = self._commands.get(command_id)
        if command is None or command.kind != "subscribe" or len(command.channels) != 1:
            return None
        return next(iter(command.channels))

    def is_book_command(self, command_id: int | None) -> bool:
        """Whether an unanswered command of this id speaks to the book sid."""
        command = self._commands.get(command_id)
        return command is not None and command.kind not in ("subscribe", "list")

    def may_follow(self, ticker: str, command_id: int | None) -> bool:
        """Whether a snapshot may start a membership: wanted, and not an answer to something asked before a delete."""
        if ticker not in self.wanted:
            return False
        return command_id is None or command_id > self._deleted_by.get(ticker, 0)

    def snapshot_came(self, ticker: str, command_id: int | None) -> None:
        """The market has a valid snapshot."""
        self.waits.forget(ticker)
        self._proofs.came(ticker)
        command = self._commands.get(command_id)
        if command is not None and command.kind in ("snapshot", "proof"):
            command.open_tickers.discard(ticker)
            if not command.open_tickers:
                self._commands.done(command)
                self.pump()

    def prove(self, tickers: Iterable[str]) -> None:
        """A message that nobody knows may have changed these books, which are followed on: the next snapshot tells."""
        self._proofs.want(tickers)

    def gap_seen(self, members: Iterable[str]) -> None:
        """Book frames are missing: members need a new snapshot."""
        self.waits.gap_seen()
        self.lost(members, ask_now=True)

    def lost(self, tickers: Iterable[str], *, ask_now: bool) -> None:
        """These markets lost a frame: they need a new snapshot, at once or at the next deadline."""
        self.waits.lost((ticker for ticker in tickers if ticker in self.wanted), self.now_ns, ask_now=ask_now)
        self.pump()

    def asked_rarely(self) -> int:
        """How many markets lose their claim again and again, and are asked for ever more rarely."""
        return self.waits.relapses.repeated(self.now_ns)

    def stream_ended(self, channel: str) -> None:
        """The subscription is dead: subscribe afresh, later each time if it keeps dying."""
        if channel != BOOK_CHANNEL:
            self._channels.discard(channel)
            self._retries.after_failure(self.now_ns, lambda: self.want_channels([channel]), first_at_once=True)
            return
        self.book_sid = None
        # The commands named a sid that is gone; the subscription that comes holds every wanted market.
        self._commands.forget_books()
        self.waits.to_ask.clear()
        gone = (*self._to_delete, *self._deleting)
        self._to_delete.clear()
        self._deleted(gone)
        self.waits.begin_anew(self.wanted)
        self._to_add.update(dict.fromkeys(self.wanted))
        self._paused_until_ns = self.now_ns + self._retries.delay_ns(self.now_ns, first_at_once=True)
        self.pump()

    # -- time and output

    def tick(self) -> list[Alarm]:
        """Look at every deadline."""
        alarms = self._unanswered_commands()
        mute = tuple(self.waits.overdue(self.now_ns))
        if mute:
            alarms.append(Alarm("snapshot_unanswered", f"{len(mute)} markets sent no snapshot", mute))
        self._retries.run_due(self.now_ns)
        self.pump()
        self._ask_for_proofs()
        return alarms

    def take(self) -> list[bytes]:
        """The commands made since the last call, in the order in which they must be sent."""
        return self._commands.take()

    def pump(self) -> None:
        """Make commands of what waits, as far as the sid is known and not too many are unanswered."""
        if self.now_ns < self._paused_until_ns:
            return
        commands, to_ask = self._commands, self.waits.to_ask
        may_add = self.now_ns >= self._full_until_ns
        if self.book_sid is None:
            if self._to_add and may_add and not commands.opening(BOOK_CHANNEL):
                commands.subscribe([BOOK_CHANNEL], self._cut(self._to_add), self.now_ns)
            return
        while self._to_delete:
            batch = self._cut(self._to_delete)
            self._deleting.update(batch)
            self._delete(batch)
        while self._to_add and may_add and commands.adds_in_flight() < self._adds:
            commands.update("add", "add_markets", self.book_sid, self._cut(self._to_add), self.now_ns)
        while to_ask and commands.snapshots_in_flight() < self._snapshots:
            command = commands.update("snapshot", "get_snapshot", self.book_sid, self._cut(to_ask), self.now_ns)
            command.open_tickers = set(command.tickers)

    # -- inside

    def _ask_for_proofs(self) -> None:
        if self.book_sid is None or self.now_ns < self._paused_until_ns:
            return
        tickers = self._proofs.due(self.now_ns, self._batch)
        if tickers:
            command = self._commands.update("proof", "get_snapshot", self.book_sid, tickers, self.now_ns)
            command.open_tickers = set(tickers)

    def _want(self, ticker: str, exchange_index: int) -> None:
        self.wanted[ticker] = exchange_index
        self.waits.begin(ticker, after_loss=False)
        self._to_add[ticker] = None

    def _delete(self, tickers: tuple[str, ...]) -> Command:
        command = self._commands.update("delete", "delete_markets", self.book_sid, tickers, self.now_ns)
        self._deleted_by.update(dict.fromkeys(tickers, command.id))
        return command

    def _deleted(self, tickers: Iterable[str]) -> None:
        for ticker in tickers:
            self._deleting.discard(ticker)
            exchange_index = self._add_after_delete.pop(ticker, None)
            if exchange_index is not None:
                self._want(ticker, exchange_index)

    def _full(self, command: Command, detail: str) -> list[Alarm]:
        """Not even one more market: report all that are left, and try them again after the longest delay, unless they
        are taken away meanwhile."""
        self._again(command)
        self._batch = self._config.batch_size
        self._full_until_ns = self.now_ns + int(self._config.retry_cap_s * NS_PER_S)
        self.waits.refuse(self._to_add)
        return [Alarm("market_limit", detail, tuple(self._to_add))]

    def _rejected(self, command: Command, named: tuple[str, ...], detail: str, tickers: tuple[str, ...]) -> list[Alarm]:
        """The command is wrong as it stands: report it, and try what may be right of it."""
        if command.kind == "proof":
            return [Alarm("error", detail)]
        lost = named or tuple(ticker for ticker in command.tickers if ticker in self.wanted)
        self.waits.refuse(lost)
        if command.kind == "delete":
            self._deleted(command.tickers)
        elif named:
            command.tickers = tuple(ticker for ticker in command.tickers if ticker not in named)
            self._again(command)
        self._channels.difference_update(command.channels)
        if len(command.channels) > 1:
            # One of them was refused; nothing says which.
            for channel in sorted(command.channels):
                self.want_channels([channel])
        self.pump()
        return [Alarm("error", detail, tickers or lost)]

    def _again(self, command: Command) -> None:
        """Put the markets of a refused command back into its queue."""
        if command.kind == "proof":
            return  # they are still waiting
        if command.kind == "delete":
            self._deleting.difference_update(command.tickers)
            self._to_delete.update(dict.fromkeys(command.tickers))
            return
        if command.kind == "subscribe" and BOOK_CHANNEL not in command.channels:
            self._channels.difference_update(command.channels)
            self.want_channels(command.channels)
            return
        queue = self.waits.to_ask if command.kind == "snapshot" else self._to_add
        for ticker in command.tickers:
            if ticker in self.wanted and (command.kind != "snapshot" or ticker in self.waits.by_ticker):
                queue[ticker] = None
                if queue is self._to_add:
                    self.waits.not_asked(ticker)

    def _unanswered_commands(self) -> list[Alarm]:
        alarms: list[Alarm] = []
        for command in self._commands.overdue(self.now_ns, int(self._config.ack_deadline_s * NS_PER_S)):
            if command.kind in ("snapshot", "proof", "list"):
                continue  # each market has a deadline of its own, and silence is the connection's to judge
            alarms.append(Alarm("command_unanswered", f"{command.kind} {command.id}", command.tickers))
            if command.kind != "delete":
                self._again(command)
            elif command.attempts >= self._config.attempts:
                self._deleted(command.tickers)
            else:
                self._delete(command.tickers).attempts = command.attempts + 1
        return alarms

    def _cut(self, queue: dict[str, None]) -> tuple[str, ...]:
        batch = tuple(ticker for ticker, _ in zip(queue, range(self._batch), strict=False))
        for ticker in batch:
            del queue[ticker]
        self.waits.asked(batch, self.now_ns)
        return batch
