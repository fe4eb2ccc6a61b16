"""Markets that change from one connection to another, made before broken.

The new connection subscribes while the old one goes on. The old one lets go when the new one has a snapshot of every
market that the old one follows (but for a few that stay mute, as settled ones do), and both have seen the feed go on
for long enough that what they claim overlaps: a stream's claim begins up to a margin after its snapshot and ends a
margin before its last delta.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from kalshi_platform.market.times import US_PER_S

_ONE_MUTE_OF = 50
"""One market of so many may stay mute on the new connection; if more do, the connection is at fault."""


class ConnectionView(Protocol):
    """The part of a connection that a handover looks at."""

    @property
    def is_open(self) -> bool: ...

    @property
    def has_channels(self) -> bool:
        """Whether every channel it was given is open."""

    def followed(self) -> frozenset[str]: ...

    def unresponsive(self) -> frozenset[str]:
        """Markets that gave no snapshot although they were asked for again; refused ones are not among them."""

    def start_overlap_tracking(self) -> None:
        """Begin to note the exchange times of deltas, and the markets of which a book subscription begins."""

    def resubscribed(self) -> frozenset[str]:
        """Markets of which a book subscription began since `start_overlap_tracking`."""

    def feed_times(self) -> Mapping[int, tuple[int, int]]:
        """exchange_index → exchange time (µs) of the first and of the latest delta since `start_overlap_tracking`."""


class Handover:
    """One change from `source` to `target`; `tickers` None: of everything that `source` carries."""

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
        """`overlap_s`: how much longer than the first delta after the snapshots the old one stays (exchange time);
        a feed in which nothing happens is waited for at most `patience_s`. `now` is monotonic.
        """
        self.source = source
        self.target = target
        self._tickers = tickers
        self._overlap_s = overlap_s
        self._patience_s = patience_s
        self._began = now
        self._complete_at: float | None = None
        self._complete: frozenset[str] = frozenset()

    def is_stuck(self, now: float) -> bool:
        """Whether the new connection did not even come to have all snapshots within the patience."""
        return self._complete_at is None and now - self._began > self._patience_s

    def is_done(self, now: float, indices: Collection[int]) -> bool:
        """Whether the old connection may let go. `indices`: the exchange_index values of the markets handed over."""
        if not self.target.is_open:
            self._complete_at = None
            return False
        if not self.source.is_open:
            # It holds nothing that could be kept.
            return True
        if not self._is_complete():
            return False
        if self._complete_at is None:
            self._complete_at = now
            self._complete = self.target.followed()
            self.source.start_overlap_tracking()
            self.target.start_overlap_tracking()
        if self.target.resubscribed() & self._complete:
            # It lost markets and has them again: what it claims of them begins anew. New markets are no loss.
            self._complete_at = None
            return False
        waited_s = now - self._complete_at
        if waited_s < self._overlap_s:
            return False
        return waited_s >= self._patience_s or self._overlaps(indices)

    def _is_complete(self) -> bool:
        if not self.target.has_channels:
            return False
        held = self.source.followed() if self._tickers is None else self.source.followed() & self._tickers
        missing = held - self.target.followed()
        return not missing or (missing <= self.target.unresponsive() and len(missing) * _ONE_MUTE_OF <= len(held))

    def _overlaps(self, indices: Collection[int]) -> bool:
        old, new = self.source.feed_times(), self.target.feed_times()
        overlap_us = int(self._overlap_s * US_PER_S)
        return all(index in old and index in new and old[index][1] > new[index][0] + overlap_us for index in indices)
