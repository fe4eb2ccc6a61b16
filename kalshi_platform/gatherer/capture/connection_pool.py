"""Manages all connections of a gatherer: one for trades, tickers and lifecycle, and as many as the books need.

Markets keep their connection. New connections are opened when the present ones are full. Markets move, and connections
are replaced by fresh ones, only when the new connection has their snapshots already (see `handover`), and one such
change at a time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kalshi_platform.clock import Clock
from kalshi_platform.exchange.protocol.session import Alarm
from kalshi_platform.gatherer.capture.connect_pacing import RotationSchedule
from kalshi_platform.gatherer.capture.connection_slot import ConnectionSlot
from kalshi_platform.gatherer.capture.connections import Connection
from kalshi_platform.gatherer.capture.handover import Handover
from kalshi_platform.gatherer.capture.shard_assignment import Move, ShardAssignment
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.status import ConnectionPoolStatus
from kalshi_platform.monitoring.event_log import event_logger

FEED = "feed"
OnAlarm: TypeAlias = Callable[[Connection, Alarm], None]
MakeConnection: TypeAlias = Callable[[str, OnAlarm], Connection]
"""Makes a connection with this name, not started, whose alarms go to the callback."""
_PATIENCE = 10
"""Multiple of `rebalance_after_s` after which markets that never are calm move, and a failed move is repeated."""
_log = event_logger(__name__)


@dataclass
class _Change:
    """Describes the change under way: a rotation of `slot`, or a move between slots."""

    handover: Handover
    slot: int
    move: Move | None


class ConnectionPool:
    """Distributes markets over connections; `set_markets` is for one thread, other methods for any."""

    def __init__(self, settings: GathererSettings, clock: Clock, make: MakeConnection, on_alarm: OnAlarm) -> None:
        """Set up the pool; `make` makes each connection, and `on_alarm` receives the alarms of all."""
        self.counters = ConnectionPoolStatus()
        self._settings = settings
        self._clock = clock
        self._make = make
        self._on_alarm = on_alarm
        self._shards = ShardAssignment(
            settings.connections if settings.follow_books else 0, settings.markets_per_connection
        )
        self._feed = self._make_slot(FEED)
        self._books = [self._make_slot(_name(number)) for number in range(len(self._shards))]
        self._wanted: Mapping[str, int] = {}
        self._pending_slots: set[int] = set()
        """Slots whose connection does not have its present markets yet."""
        self._changed_at = clock.monotonic()
        self._uneven_since: float | None = None
        self._no_move_before = 0.0
        self._change: _Change | None = None
        self._refused: list[tuple[Connection, tuple[str, ...]]] = []
        self._lock = threading.Lock()
        self._books_started = False

    # -- life

    def start_feed(self) -> None:
        """Connect for trades, tickers and lifecycle."""
        self._feed.present.start()

    def start_books(self) -> None:
        """Start the connections for books; each connects when it has markets."""
        self._books_started = True
        for slot in self._books:
            slot.present.start()

    # -- markets

    def set_markets(self, wanted: Mapping[str, int]) -> None:
        """Follow exactly these books (ticker → exchange_index), and continue the change under way.

        Called about once a second; an unchanged set may come as the same object.
        """
        self._process_refusals()
        if (wanted is not self._wanted or self._pending_slots) and self._shards:
            if len(wanted) != len(self._wanted):
                self._changed_at = self._clock.monotonic()
            self._distribute(self._with_target(self._shards.assign(wanted)))
            # Set last: if starting a connection fails, the next call repeats the distribution.
            self._wanted = wanted
        self._continue_changes()

    def resubscribe(self, tickers: Sequence[str]) -> None:
        """Unsubscribe markets and subscribe them again, each on its connection."""
        for slot in self._books:
            for connection in slot.connections():
                connection.resubscribe(tickers)

    def resubscribe_missing(self, tickers: Sequence[str]) -> None:
        """Subscribe markets again on those of their connections that do not follow them."""
        for slot in self._books:
            for connection in slot.connections():
                connection.resubscribe_missing(tickers)

    def books_lost(self, session_id: int, tickers: Sequence[str]) -> None:
        """Request snapshots of books of which the decoder lost a frame, on the connection with this session."""
        for slot in self._books:
            for connection in slot.connections():
                connection.books_lost(session_id, tickers)

    # -- state

    @property
    def slots(self) -> tuple[ConnectionSlot, ...]:
        """Return all slots, the feed's first."""
        return (self._feed, *self._books)

    def followed(self) -> int:
        """Return how many books are followed now."""
        change = self._change
        if change is None:
            return sum(len(slot.present.followed()) for slot in self._books)
        return len(frozenset().union(*(each.followed() for slot in self._books for each in slot.connections())))

    def out_of_sync(self) -> frozenset[str]:
        """Return the markets that lost a frame, lack a snapshot, and are followed on no other connection."""
        lost = frozenset().union(*(each.out_of_sync() for slot in self._books for each in slot.connections()))
        if not lost or self._change is None:
            return lost
        return lost - frozenset().union(*(each.followed() for slot in self._books for each in slot.connections()))

    # -- internals

    def _handle_alarm(self, connection: Connection, alarm: Alarm) -> None:
        """Record the markets that the exchange refused a full connection; called from the connections' threads."""
        if alarm.kind == "market_limit":
            with self._lock:
                self._refused.append((connection, alarm.tickers))
        self._on_alarm(connection, alarm)

    def _make_slot(self, name: str) -> ConnectionSlot:
        settings = self._settings
        rotation = RotationSchedule(
            settings.rotate_connections_s, f"{settings.name} {name}", self._clock.monotonic(), random.random
        )
        return ConnectionSlot(name, lambda name: self._make(name, self._handle_alarm), rotation, self._clock)

    def _distribute(self, changed: set[int]) -> None:
        """Set the markets of changed connections, and open new ones. Raises what starting a thread raises."""
        self._pending_slots |= changed | set(range(len(self._books), len(self._shards)))
        for number in sorted(self._pending_slots):
            if number == len(self._books):
                slot = self._make_slot(_name(number))
                if self._books_started:
                    slot.present.start()
                self._books.append(slot)
                _log.info("book_connection_added", gatherer=self._settings.name, book_connections=len(self._books))
            self._books[number].set_markets(self._markets_of(number))
            self._pending_slots.remove(number)

    def _with_target(self, changed: set[int]) -> set[int]:
        """Add the target of a move whose source changed: a moving market is subscribed on both."""
        move = self._change.move if self._change is not None else None
        return changed | {move.target} if move is not None and move.source in changed else changed

    def _markets_of(self, number: int) -> dict[str, int]:
        """Return the markets of a connection: its own, and those that are moving to it."""
        markets = dict(self._shards.markets(number))
        change = self._change
        if change is not None and change.move is not None and change.move.target == number:
            source = self._shards.markets(change.move.source)
            markets |= {ticker: source[ticker] for ticker in change.move.tickers if ticker in source}
        return markets

    def _process_refusals(self) -> None:
        with self._lock:
            refused, self._refused = self._refused, []
        for connection, tickers in refused:
            number = next((n for n, slot in enumerate(self._books) if slot.present is connection), None)
            if number is None:
                continue
            self._distribute(self._with_target(self._shards.handle_refusal(number, tickers)))

    def _continue_changes(self) -> None:
        for slot in self.slots:
            slot.reap_closed()
        now = self._clock.monotonic()
        if self._change is None:
            self._begin_change(now)
        elif self._change.handover.is_done(now, self._exchange_indices(self._change)):
            self._finish_change(self._change, now)
        elif self._change.handover.is_stuck(now):
            self._give_up_change(self._change, now)

    def _begin_change(self, now: float) -> None:
        move = self._plan_due_move(now)
        if move is not None:
            source, target = self._books[move.source].present, self._books[move.target].present
            self._change = _Change(self._make_handover(source, target, frozenset(move.tickers), now), move.source, move)
            self._distribute({move.target})
            return
        due = [(n, s) for n, s in enumerate(self.slots) if s.rotation.is_due(now) and s.present.is_open]
        if due:
            number, slot = min(due, key=lambda each: each[1].rotation.due)
            successor = slot.begin_rotation(self._markets_of(number - 1) if number else {})
            self._change = _Change(self._make_handover(slot.present, successor, None, now), number - 1, None)

    def _plan_due_move(self, now: float) -> Move | None:
        """Return a balancing move, if the markets have been calm, or the connections uneven for long."""
        move = self._shards.plan_move() if self._books_started and self._shards else None
        if move is None:
            self._uneven_since = None
            return None
        if self._uneven_since is None:
            self._uneven_since = now
        calm_s = self._settings.rebalance_after_s
        is_due = now - self._changed_at >= calm_s or now - self._uneven_since >= _PATIENCE * calm_s
        return move if is_due and now >= self._no_move_before else None

    def _make_handover(
        self, source: Connection, target: Connection, tickers: frozenset[str] | None, now: float
    ) -> Handover:
        settings = self._settings
        return Handover(
            source,
            target,
            tickers,
            overlap_s=settings.handover_overlap_s,
            patience_s=settings.handover_patience_s,
            now=now,
        )

    def _exchange_indices(self, change: _Change) -> set[int]:
        if change.slot < 0:
            return set()
        markets = self._shards.markets(change.slot)
        if change.move is None:
            return set(markets.values())
        return {markets[ticker] for ticker in change.move.tickers if ticker in markets}

    def _finish_change(self, change: _Change, now: float) -> None:
        self._change = None
        if change.move is not None:
            self._shards.apply_move(change.move)
            self.counters.moved_markets += len(change.move.tickers)
            self._distribute({change.move.source, change.move.target})
            return
        slot = self.slots[change.slot + 1]
        slot.end_rotation(keep=False)
        self.counters.rotations += 1
        slot.rotation.done(now)
        _log.info("connection_rotated", gatherer=self._settings.name, connection=slot.name)

    def _give_up_change(self, change: _Change, now: float) -> None:
        """Keep the old connection, because the new one did not get the snapshots in time."""
        self._change = None
        if change.move is not None:
            # The next attempt, if still needed, may name other markets; rotations go first.
            self._no_move_before = now + _PATIENCE * self._settings.rebalance_after_s
            self._distribute({change.move.target})
            return
        slot = self.slots[change.slot + 1]
        slot.end_rotation(keep=True)
        self.counters.rotations_given_up += 1
        slot.rotation.done(now)
        _log.warning("rotation_given_up", gatherer=self._settings.name, connection=slot.name)


def _name(number: int) -> str:
    return f"books-{number}"
