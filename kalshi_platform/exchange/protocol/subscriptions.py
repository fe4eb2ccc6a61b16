"""Keeps the markets and channels of a session's subscriptions, and makes the commands for them. Pure.

Calls that make or classify commands receive `now_ns`, of a monotonic clock. Batches have at most 500 tickers, which is
known to work: the exchange's own limits are unpublished (docs.kalshi.com, asyncapi.yaml, read 2026-11-22).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kalshi_platform.backoff import exponential
from kalshi_platform.exchange.protocol.commands import Command, PendingCommands
from kalshi_platform.exchange.protocol.error_codes import ErrorAction, action_for
from kalshi_platform.exchange.protocol.pending_snapshots import PendingSnapshots, SnapshotChecks
from kalshi_platform.exchange.protocol.sequence import BOOK_CHANNEL
from kalshi_platform.exchange.protocol.session_model import NS_PER_S, Alarm, SessionConfig


class RetryQueue:
    """Runs actions at their due time, each called with the time at which it runs.

    Delays double from `base_ns` to `cap_ns`, and start again at `base_ns` after ten caps without a failure.
    """

    def __init__(self, base_ns: int, cap_ns: int) -> None:
        self._base_ns = base_ns
        self._cap_ns = cap_ns
        self._failures = 0
        self._last_failure_ns = 0
        self._waiting: list[tuple[int, Callable[[int], None]]] = []

    def delay_ns(self, now_ns: int, *, first_at_once: bool) -> int:
        """Count a failure and return the wait after it, in nanoseconds."""
        if now_ns - self._last_failure_ns > 10 * self._cap_ns:
            self._failures = 0
        self._last_failure_ns = now_ns
        self._failures += 1
        if first_at_once and self._failures == 1:
            return 0
        return exponential(self._base_ns, self._cap_ns, self._failures - 1)

    def schedule_after_failure(
        self, now_ns: int, action: Callable[[int], None], *, first_at_once: bool = False
    ) -> None:
        """Count a failure, and schedule `action` after its delay."""
        delay_ns = self.delay_ns(now_ns, first_at_once=first_at_once)
        if delay_ns:
            self._waiting.append((now_ns + delay_ns, action))
        else:
            action(now_ns)

    def schedule_after_cap(self, now_ns: int, action: Callable[[int], None]) -> None:
        """Schedule `action` after the longest delay."""
        self._waiting.append((now_ns + self._cap_ns, action))

    def run_due(self, now_ns: int) -> None:
        """Run the actions that are due."""
        due = [action for at, action in self._waiting if at <= now_ns]
        if due:
            self._waiting = [entry for entry in self._waiting if entry[0] > now_ns]
            for action in due:
                action(now_ns)


class Subscriptions:
    """Keeps which books and channels of one session are wanted, requested, subscribed and lost."""

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self._batch = config.batch_size
        self._adds = config.adds_in_flight
        self._snapshots = config.snapshots_in_flight
        self.book_sid: int | None = None
        self.wanted: dict[str, int] = {}
        self.pending = PendingSnapshots(int(config.snapshot_deadline_s * NS_PER_S), config.attempts)
        self._checks = SnapshotChecks(int(config.proof_every_s * NS_PER_S), int(config.proof_again_s * NS_PER_S))
        self._commands = PendingCommands()
        self._retries = RetryQueue(int(config.retry_base_s * NS_PER_S), int(config.retry_cap_s * NS_PER_S))
        self._channels: set[str] = set()
        self._to_add: dict[str, None] = {}
        self._to_delete: dict[str, None] = {}
        self._deleting: set[str] = set()
        self._add_after_delete: dict[str, int] = {}
        self._deleted_by: dict[str, int] = {}
        self._paused_until_ns = 0
        self._full_until_ns = 0

    # -- requests of the caller

    def subscribe(self, markets: Mapping[str, int], now_ns: int) -> None:
        """Subscribe the books of these markets.

        One whose delete is not acknowledged yet is added after that, never before: a snapshot between the two would
        start a book subscription that the server does not serve.
        """
        for ticker, exchange_index in markets.items():
            if ticker in self._deleting or ticker in self._to_delete:
                self._add_after_delete[ticker] = exchange_index
            elif ticker not in self.wanted:
                self._add_wanted(ticker, exchange_index)
        self.flush_pending(now_ns)

    def unsubscribe(self, tickers: Iterable[str], now_ns: int) -> None:
        """Unsubscribe the books of these markets."""
        for ticker in tickers:
            self._add_after_delete.pop(ticker, None)
            if self.wanted.pop(ticker, None) is None:
                continue
            self.pending.forget(ticker)
            self._checks.forget(ticker)
            if self._to_add.pop(ticker, 0) == 0:
                self._to_delete[ticker] = None
        self.flush_pending(now_ns)

    def subscribe_channels(self, channels: Iterable[str], now_ns: int) -> None:
        """Open channels that need no market list."""
        fresh = [channel for channel in dict.fromkeys(channels) if channel not in self._channels]
        if fresh:
            self._channels.update(fresh)
            self._commands.subscribe(fresh, (), now_ns)

    def list_subscriptions(self, now_ns: int) -> int:
        """Request the open subscriptions; return the number of the command."""
        return self._commands.list_subscriptions(now_ns).id

    # -- events of the exchange

    def opened(self, channel: str, sid: int, command_id: int | None, now_ns: int) -> None:
        """Handle a `subscribed`, or an `ok` that merged a command into an open channel."""
        command = self._commands.get(command_id)
        if command is not None and command.kind == "subscribe":
            command.channels.discard(channel)
            if not command.channels:
                self._commands.resolve(command)
        if channel == BOOK_CHANNEL:
            self.book_sid = sid
            # A response without our id still opens the channel: no second subscribe may follow.
            for other in self._commands.pending_subscribes(BOOK_CHANNEL):
                self._commands.resolve(other)
            self.flush_pending(now_ns)

    def answered(self, command_id: int | None, now_ns: int) -> Command | None:
        """Handle an `ok`; return the command it belongs to."""
        command = self._commands.get(command_id)
        if command is None or command.kind in ("snapshot", "proof") or len(command.channels) > 1:
            return command
        self._commands.resolve(command)
        if command.kind == "delete":
            self._finish_delete(command.tickers)
        self.flush_pending(now_ns)
        return command

    def refused(
        self, command_id: int | None, code: int, message: str, tickers: tuple[str, ...], now_ns: int
    ) -> list[Alarm]:
        """Handle an `error` that ends no stream; return the alarms."""
        command = self._commands.get(command_id)
        named = tuple(ticker for ticker in tickers if ticker in self.wanted)
        detail = f"error {code}: {message[:200]}"
        if command is None:
            self.pending.refuse(named)
            return [Alarm("error", detail, tickers)]
        self._commands.resolve(command)
        if command.kind == "list":
            return [Alarm("error", detail)]
        action = action_for(code)
        if action is ErrorAction.HALVE_BATCH and len(command.tickers) > 1:
            self._batch = max(1, min(self._batch, len(command.tickers)) // 2)
            self._requeue(command, now_ns)
            self.flush_pending(now_ns)
            return []
        if action is ErrorAction.HALVE_BATCH and command.kind in ("add", "subscribe"):
            return self._handle_full_subscription(command, detail, now_ns)
        if action in (ErrorAction.RETRY_LATER, ErrorAction.HALVE_PACE):
            if action is ErrorAction.HALVE_PACE:
                self._adds, self._snapshots = max(1, self._adds // 2), max(1, self._snapshots // 2)
            self._retries.schedule_after_failure(now_ns, lambda at_ns: self._requeue(command, at_ns))
            return []
        if action is ErrorAction.RETRY_RARELY:
            self._retries.schedule_after_cap(now_ns, lambda at_ns: self._requeue(command, at_ns))
            return [Alarm("not_authorised", f"{detail}; check the key's scope and environment", tickers)]
        return self._handle_rejected(command, named, detail, tickers, now_ns)

    def merged_channel(self, command_id: int | None) -> str | None:
        """Return the channel of an unanswered subscribe of this id, if it is for one channel."""
        command = self._commands.get(command_id)
        if command is None or command.kind != "subscribe" or len(command.channels) != 1:
            return None
        return next(iter(command.channels))

    def is_book_command(self, command_id: int | None) -> bool:
        """Return whether an unanswered command of this id addresses the book sid."""
        command = self._commands.get(command_id)
        return command is not None and command.kind not in ("subscribe", "list")

    def accepts_snapshot(self, ticker: str, command_id: int | None) -> bool:
        """Return whether a snapshot may start a book subscription: wanted, and not requested before a delete."""
        if ticker not in self.wanted:
            return False
        return command_id is None or command_id > self._deleted_by.get(ticker, 0)

    def snapshot_came(self, ticker: str, command_id: int | None, now_ns: int) -> None:
        """Mark a market's snapshot as received."""
        self.pending.forget(ticker)
        self._checks.clear(ticker)
        command = self._commands.get(command_id)
        if command is not None and command.kind in ("snapshot", "proof"):
            command.open_tickers.discard(ticker)
            if not command.open_tickers:
                self._commands.resolve(command)
                self.flush_pending(now_ns)

    def check_books(self, tickers: Iterable[str]) -> None:
        """Request a snapshot of books that a message of unknown type may have changed; they stay subscribed."""
        self._checks.request(tickers)

    def on_gap(self, followed: Iterable[str], now_ns: int) -> None:
        """Request new snapshots of `followed`, because book frames are missing."""
        self.pending.on_gap()
        self.mark_lost(followed, now_ns, request_now=True)

    def mark_lost(self, tickers: Iterable[str], now_ns: int, *, request_now: bool) -> None:
        """Request snapshots of markets that lost a frame, at once or at the next deadline."""
        self.pending.mark_lost((ticker for ticker in tickers if ticker in self.wanted), now_ns, request_now=request_now)
        self.flush_pending(now_ns)

    def resubscribed_rarely(self, now_ns: int) -> int:
        """Return how many markets lose their claim again and again, and are requested ever more rarely."""
        return self.pending.repeated_losses.repeated(now_ns)

    def stream_ended(self, channel: str, now_ns: int) -> None:
        """Subscribe a channel again after its stream ended, with a growing delay if it keeps ending."""
        if channel != BOOK_CHANNEL:
            self._channels.discard(channel)
            self._retries.schedule_after_failure(
                now_ns, lambda at_ns: self.subscribe_channels([channel], at_ns), first_at_once=True
            )
            return
        self.book_sid = None
        # The commands named a sid that is gone; the next subscription includes every wanted market.
        self._commands.drop_book_commands()
        self.pending.to_request.clear()
        gone = (*self._to_delete, *self._deleting)
        self._to_delete.clear()
        self._finish_delete(gone)
        self.pending.restart_all(self.wanted)
        self._to_add.update(dict.fromkeys(self.wanted))
        self._paused_until_ns = now_ns + self._retries.delay_ns(now_ns, first_at_once=True)
        self.flush_pending(now_ns)

    # -- time and output

    def tick(self, now_ns: int) -> list[Alarm]:
        """Check every deadline; return the alarms."""
        alarms = self._expire_commands(now_ns)
        unresponsive = tuple(self.pending.check_deadlines(now_ns))
        if unresponsive:
            alarms.append(Alarm("snapshot_unanswered", f"{len(unresponsive)} markets sent no snapshot", unresponsive))
        self._retries.run_due(now_ns)
        self.flush_pending(now_ns)
        self._request_checks(now_ns)
        return alarms

    def pop_commands(self) -> list[bytes]:
        """Return the commands made since the last call, JSON bytes in the order in which they must be sent."""
        return self._commands.pop_commands()

    def flush_pending(self, now_ns: int) -> None:
        """Make commands for what is pending, as far as the sid is known and not too many are unanswered."""
        if now_ns < self._paused_until_ns:
            return
        commands, to_request = self._commands, self.pending.to_request
        may_add = now_ns >= self._full_until_ns
        if self.book_sid is None:
            if self._to_add and may_add and not commands.pending_subscribes(BOOK_CHANNEL):
                commands.subscribe([BOOK_CHANNEL], self._pop_batch(self._to_add, now_ns), now_ns)
            return
        while self._to_delete:
            batch = self._pop_batch(self._to_delete, now_ns)
            self._deleting.update(batch)
            self._delete(batch, now_ns)
        while self._to_add and may_add and commands.adds_in_flight() < self._adds:
            commands.update("add", "add_markets", self.book_sid, self._pop_batch(self._to_add, now_ns), now_ns)
        while to_request and commands.snapshots_in_flight() < self._snapshots:
            command = commands.update(
                "snapshot", "get_snapshot", self.book_sid, self._pop_batch(to_request, now_ns), now_ns
            )
            command.open_tickers = set(command.tickers)

    # -- inside

    def _request_checks(self, now_ns: int) -> None:
        if self.book_sid is None or now_ns < self._paused_until_ns:
            return
        tickers = self._checks.due(now_ns, self._batch)
        if tickers:
            command = self._commands.update("proof", "get_snapshot", self.book_sid, tickers, now_ns)
            command.open_tickers = set(tickers)

    def _add_wanted(self, ticker: str, exchange_index: int) -> None:
        self.wanted[ticker] = exchange_index
        self.pending.begin(ticker, after_loss=False)
        self._to_add[ticker] = None

    def _delete(self, tickers: tuple[str, ...], now_ns: int) -> Command:
        command = self._commands.update("delete", "delete_markets", self.book_sid, tickers, now_ns)
        self._deleted_by.update(dict.fromkeys(tickers, command.id))
        return command

    def _finish_delete(self, tickers: Iterable[str]) -> None:
        for ticker in tickers:
            self._deleting.discard(ticker)
            exchange_index = self._add_after_delete.pop(ticker, None)
            if exchange_index is not None:
                self._add_wanted(ticker, exchange_index)

    def _handle_full_subscription(self, command: Command, detail: str, now_ns: int) -> list[Alarm]:
        """Report all markets that are left, because the subscription accepts no further one.

        They are tried again after the longest delay, unless they were unsubscribed meanwhile.
        """
        self._requeue(command, now_ns)
        self._batch = self._config.batch_size
        self._full_until_ns = now_ns + int(self._config.retry_cap_s * NS_PER_S)
        self.pending.refuse(self._to_add)
        return [Alarm("market_limit", detail, tuple(self._to_add))]

    def _handle_rejected(
        self, command: Command, named: tuple[str, ...], detail: str, tickers: tuple[str, ...], now_ns: int
    ) -> list[Alarm]:
        """Report a wrong command, and send again the parts of it that may be right."""
        if command.kind == "proof":
            return [Alarm("error", detail)]
        lost = named or tuple(ticker for ticker in command.tickers if ticker in self.wanted)
        self.pending.refuse(lost)
        if command.kind == "delete":
            self._finish_delete(command.tickers)
        elif named:
            command.tickers = tuple(ticker for ticker in command.tickers if ticker not in named)
            self._requeue(command, now_ns)
        self._channels.difference_update(command.channels)
        if len(command.channels) > 1:
            # The error does not tell which channel was refused.
            for channel in sorted(command.channels):
                self.subscribe_channels([channel], now_ns)
        self.flush_pending(now_ns)
        return [Alarm("error", detail, tickers or lost)]

    def _requeue(self, command: Command, now_ns: int) -> None:
        """Append the markets of a refused command to its queue again."""
        if command.kind == "proof":
            return  # its markets are still queued in the checks
        if command.kind == "delete":
            self._deleting.difference_update(command.tickers)
            self._to_delete.update(dict.fromkeys(command.tickers))
            return
        if command.kind == "subscribe" and BOOK_CHANNEL not in command.channels:
            self._channels.difference_update(command.channels)
            self.subscribe_channels(command.channels, now_ns)
            return
        queue = self.pending.to_request if command.kind == "snapshot" else self._to_add
        for ticker in command.tickers:
            if ticker in self.wanted and (command.kind != "snapshot" or ticker in self.pending.by_ticker):
                queue[ticker] = None
                if queue is self._to_add:
                    self.pending.mark_unrequested(ticker)

    def _expire_commands(self, now_ns: int) -> list[Alarm]:
        alarms: list[Alarm] = []
        for command in self._commands.pop_overdue(now_ns, int(self._config.ack_deadline_s * NS_PER_S)):
            if command.kind in ("snapshot", "proof", "list"):
                continue  # markets have their own deadlines, and the connection checks for silence
            alarms.append(Alarm("command_unanswered", f"{command.kind} {command.id}", command.tickers))
            if command.kind != "delete":
                self._requeue(command, now_ns)
            elif command.attempts >= self._config.attempts:
                self._finish_delete(command.tickers)
            else:
                self._delete(command.tickers, now_ns).attempts = command.attempts + 1
        return alarms

    def _pop_batch(self, queue: dict[str, None], now_ns: int) -> tuple[str, ...]:
        batch = tuple(ticker for ticker, _ in zip(queue, range(self._batch), strict=False))
        for ticker in batch:
            del queue[ticker]
        self.pending.mark_requested(batch, now_ns)
        return batch
