"""Keeps one connection of a gatherer through its rotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.capture.connect_pacing import RotationSchedule
from kalshi_platform.gatherer.capture.connections import Connection, ConnectionCounters
from kalshi_platform.gatherer.status.channel_counters import ChannelCounters
from kalshi_platform.gatherer.status.status import ConnectionStatus, age_s, time_of_ns

Make = Callable[[str], Connection]
"""Makes a connection with this name, not started: the feed's or one for books."""


class ConnectionSlot:
    """Keeps the present connection of a name, and during a rotation its successor."""

    def __init__(self, name: str, make: Make, rotation: RotationSchedule, clock: Clock) -> None:
        self.name = name
        self.present = make(name)
        self.successor: Connection | None = None
        self.rotation = rotation
        self._make = make
        self._clock = clock
        self._past = ConnectionCounters()
        self._leaving: list[Connection] = []

    @property
    def counters(self) -> ConnectionCounters:
        """Return the totals of all connections that this slot has had, with the state of the present one."""
        total = self._past
        for connection in (*self._leaving, *self.connections()):
            total = _sum(total, connection.counters)
        return dataclasses.replace(total, state=self.present.counters.state)

    def status(self, channels: ChannelCounters) -> ConnectionStatus:
        """Return the status as of now; `channels` counts the messages of the connection."""
        counters, now_s = self.counters, self._clock.monotonic()
        return ConnectionStatus(
            state=counters.state,
            frames=counters.frames,
            sessions=counters.sessions,
            reconnects=counters.reconnects,
            refused=counters.refused,
            gaps=counters.gaps,
            duplicates=counters.duplicates,
            last_data=time_of_ns(counters.last_data_ns),
            last_data_age_s=age_s(counters.last_data_s if counters.last_data_ns else None, now_s),
            asked_rarely=counters.resubscribed_rarely,
            last_message_age_s=channels.ages_s(now_s),
            last_error=counters.last_error,
        )

    def connections(self) -> Iterator[Connection]:
        """Yield the present connection, and its successor during a rotation."""
        yield self.present
        if self.successor is not None:
            yield self.successor

    def set_markets(self, markets: Mapping[str, int]) -> None:
        """Follow exactly these books."""
        for connection in self.connections():
            connection.set_markets(markets)

    def begin_rotation(self, markets: Mapping[str, int]) -> Connection:
        """Start and return a successor with these markets."""
        successor = self._make(self.name)
        successor.set_markets(markets)
        successor.start()
        self.successor = successor
        return successor

    def end_rotation(self, *, keep: bool) -> None:
        """Replace the present connection by its successor, or with `keep` close the successor."""
        successor = self.successor
        assert successor is not None  # noqa: S101 - begin_rotation made it
        retired = successor if keep else self.present
        self._leaving.append(retired)
        if not keep:
            self.present = successor
        self.successor = None
        retired.close_after_handover("replacement given up" if keep else "replaced by a fresh connection")

    def reap_closed(self) -> None:
        """Remove retired connections that have ended, and add their counts to the totals."""
        for connection in [each for each in self._leaving if not each.is_running()]:
            self._past = _sum(self._past, connection.counters)
            self._leaving.remove(connection)

    def join(self, timeout_s: float) -> bool:
        """Wait, after `stop` was set, for every connection that may still put batches; return whether all ended."""
        deadline = self._clock.monotonic() + timeout_s
        for connection in (*self.connections(), *self._leaving):
            connection.join(max(0.0, deadline - self._clock.monotonic()))
        return not any(connection.is_running() for connection in (*self.connections(), *self._leaving))


def _sum(one: ConnectionCounters, other: ConnectionCounters) -> ConnectionCounters:
    return ConnectionCounters(
        state=other.state,
        frames=one.frames + other.frames,
        sessions=one.sessions + other.sessions,
        reconnects=one.reconnects + other.reconnects,
        refused=one.refused + other.refused,
        gaps=one.gaps + other.gaps,
        duplicates=one.duplicates + other.duplicates,
        last_data_ns=max(one.last_data_ns, other.last_data_ns),
        last_data_s=max(one.last_data_s, other.last_data_s),
        resubscribed_rarely=max(one.resubscribed_rarely, other.resubscribed_rarely),
        last_error=other.last_error or one.last_error,
    )
