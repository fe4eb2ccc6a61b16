"""Decides when markets may leave one connection for another: the new one is complete before the old one ends.

The new connection subscribes while the old one goes on. The old one ends when the new one has a snapshot of every
market that the old one follows (but for a few unresponsive ones, as settled markets are), and both have received deltas
for long enough that their claims overlap: a stream's claim begins up to a margin after its snapshot and ends a margin
before its last delta.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from kalshi_platform.market.times import US_PER_S

_ONE_UNRESPONSIVE_OF = 50
"""One market of so many may be unresponsive on the new connection; if more are, the connection is at fault."""


class ConnectionView(Protocol):
    """Describes the part of a connection that a handover reads."""

    @property
    def is_open(self) -> bool:
        """Return whether a session is open."""

    @property
    def has_channels(self) -> bool:
        """Return whether every channel of this connection is open."""

    def followed(self) -> frozenset[str]:
        """Return the markets with an open book subscription."""

    def unresponsive(self) -> frozenset[str]:
        """Return the markets that sent no snapshot to repeated requests; refused ones are not among them."""

    def start_overlap_tracking(self) -> None:
        """Start recording the exchange times of deltas, and the markets whose book subscription starts."""

    def resubscribed(self) -> frozenset[str]:
        """Return the markets whose book subscription started since `start_overlap_tracking`."""

    def feed_times(self) -> Mapping[int, tuple[int, int]]:
        """Return, by exchange_index, the exchange times (µs) of the first and latest delta since tracking started."""


class Handover:
    """Tracks one change from `source` to `target`, of `tickers` or (None) of everything that `source` carries."""

    def __init__(
        self,
        source: ConnectionView,
        target: ConnectionView,
        tickers: frozenset[str] | None,
        *,
        overlap_s: float,
        patience_s: float,
        now: float,
    ) -> None:
        """Start the change at the monotonic time `now`.

        `overlap_s`: how long after the new connection's first delta the old one must stay (exchange time). The wait
        for deltas of a quiet feed ends after `patience_s`.
        """
        self.source = source
        self.target = target
        self._tickers = tickers
        self._overlap_s = overlap_s
        self._patience_s = patience_s
        self._began_at = now
        self._complete_at: float | None = None
        self._complete: frozenset[str] = frozenset()

    def is_stuck(self, now: float) -> bool:
        """Return whether the new connection did not get all snapshots within the patience."""
        return self._complete_at is None and now - self._began_at > self._patience_s

    def is_done(self, now: float, indices: Collection[int]) -> bool:
        """Return whether the old connection may end; `indices` are the exchange_index values of the markets."""
        if not self.target.is_open:
            self._complete_at = None
            return False
        if not self.source.is_open:
            # A closed connection has no claim that could be kept.
            return True
        if not self._is_complete():
            return False
        if self._complete_at is None:
            self._complete_at = now
            self._complete = self.target.followed()
            self.source.start_overlap_tracking()
            self.target.start_overlap_tracking()
        if self.target.resubscribed() & self._complete:
            # It lost markets and has them again, so their claims start again. New markets are no loss.
            self._complete_at = None
            return False
        waited_s = now - self._complete_at
        if waited_s < self._overlap_s:
            return False
        return waited_s >= self._patience_s or self._overlaps(indices)

    def _is_complete(self) -> bool:
        if not self.target.has_channels:
            return False
        subscribed = self.source.followed() if self._tickers is None else self.source.followed() & self._tickers
        missing = subscribed - self.target.followed()
        return not missing or (
            missing <= self.target.unresponsive() and len(missing) * _ONE_UNRESPONSIVE_OF <= len(subscribed)
        )

    def _overlaps(self, indices: Collection[int]) -> bool:
        old, new = self.source.feed_times(), self.target.feed_times()
        overlap_us = int(self._overlap_s * US_PER_S)
        return all(index in old and index in new and old[index][1] > new[index][0] + overlap_us for index in indices)
