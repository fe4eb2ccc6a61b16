"""Tracks the markets without a valid snapshot, and when their snapshots are requested (again). Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kalshi_platform.backoff import exponential

AT_ONCE = 5
"""So many losses of a market in a row are repaired without delay."""
BASE_NS = 1_000_000_000
CAP_NS = 32_000_000_000
"""The longest delay lies between this and twice as long."""
_CALM_NS = 30_000_000_000
# Below this size the memory is not worth pruning.
_FEW = 1_000


@dataclass
class PendingSnapshot:
    """Describes a wanted market without a valid snapshot; `since_ns` is None until its command is made."""

    after_loss: bool
    since_ns: int | None = None
    requests: int = 0
    request_at_ns: int | None = None
    """When its command is to be made, if it was requested too often lately."""


class PendingSnapshots:
    """Keeps the pending markets, requests each again after a deadline, and reports unresponsive ones."""

    def __init__(self, deadline_ns: int, attempts: int) -> None:
        self.by_ticker: dict[str, PendingSnapshot] = {}
        self.to_request: dict[str, None] = {}
        self.unanswered: set[str] = set()
        self.refused: set[str] = set()
        """Those of the unanswered markets that the exchange refused."""
        self.repeated_losses = RepeatedLosses()
        self._deadline_ns = deadline_ns
        self._attempts = attempts

    def begin(self, ticker: str, *, after_loss: bool) -> None:
        """Add a wanted market whose command is still to be made."""
        self.by_ticker[ticker] = PendingSnapshot(after_loss)

    def forget(self, ticker: str) -> None:
        """Remove a market that is no longer wanted, or whose snapshot came."""
        self.by_ticker.pop(ticker, None)
        self.to_request.pop(ticker, None)
        self.unanswered.discard(ticker)
        self.refused.discard(ticker)

    def mark_lost(self, tickers: Iterable[str], now_ns: int, *, request_now: bool) -> None:
        """Add markets that lost a frame; those that are pending already stay as they are."""
        for ticker in tickers:
            if ticker in self.by_ticker:
                continue
            request_at_ns = self.repeated_losses.record_loss(ticker, now_ns)
            if request_at_ns > now_ns:
                self.by_ticker[ticker] = PendingSnapshot(after_loss=True, request_at_ns=request_at_ns)
                continue
            self.by_ticker[ticker] = PendingSnapshot(after_loss=True, since_ns=now_ns)
            if request_now:
                self.to_request[ticker] = None

    def on_gap(self) -> None:
        """Mark requested snapshots as possibly lost, because frames were."""
        for pending in self.by_ticker.values():
            if pending.since_ns is not None:
                pending.after_loss = True

    def mark_requested(self, tickers: Iterable[str], now_ns: int) -> None:
        """Start the deadline of markets for which a command was made."""
        for ticker in tickers:
            pending = self.by_ticker.get(ticker)
            if pending is not None and pending.since_ns is None:
                pending.since_ns = now_ns

    def mark_unrequested(self, ticker: str) -> None:
        """Stop the deadline of a market whose command was refused or lost, and will be made again."""
        pending = self.by_ticker.get(ticker)
        if pending is not None:
            pending.since_ns = None

    def refuse(self, tickers: Collection[str]) -> None:
        """Mark markets that the exchange refused."""
        self.refused.update(tickers)
        self.unanswered.update(tickers)

    def restart_all(self, tickers: Iterable[str]) -> None:
        """Make all of these markets pending, because their subscription ended."""
        for ticker in tickers:
            pending = self.by_ticker.setdefault(ticker, PendingSnapshot(after_loss=True))
            pending.since_ns = pending.request_at_ns = None

    def check_deadlines(self, now_ns: int) -> list[str]:
        """Queue the overdue markets; return those that have newly become unresponsive."""
        unresponsive: list[str] = []
        for ticker, pending in self.by_ticker.items():
            if pending.request_at_ns is not None and now_ns >= pending.request_at_ns:
                pending.request_at_ns, pending.since_ns = None, now_ns
                self.to_request[ticker] = None
            if pending.since_ns == 0:
                pending.since_ns = now_ns
            if pending.since_ns is None or now_ns - pending.since_ns < self._deadline_ns or ticker in self.to_request:
                continue
            pending.since_ns = now_ns
            if pending.requests < self._attempts:
                pending.requests += 1
                self.to_request[ticker] = None
            elif ticker not in self.unanswered:
                self.unanswered.add(ticker)
                unresponsive.append(ticker)
        return unresponsive


class RepeatedLosses:
    """Delays the snapshot requests of markets that lose their claim again and again, on one connection.

    The losses of a market are forgotten once it kept its claim for half a minute after a request.
    """

    def __init__(self) -> None:
        self._by_ticker: dict[str, tuple[int, int]] = {}
        self._forget_above = _FEW

    def record_loss(self, ticker: str, now_ns: int) -> int:
        """Count the loss of a market's claim; return when its snapshot may be requested (`now_ns`: at once)."""
        losses, requested_ns = self._by_ticker.get(ticker, (0, now_ns))
        if now_ns - requested_ns > _CALM_NS:
            losses = 0
        at_ns = now_ns
        if losses >= AT_ONCE:
            delay_ns = exponential(BASE_NS, CAP_NS, losses - AT_ONCE)
            at_ns = -(-(now_ns + delay_ns) // delay_ns) * delay_ns
        self._by_ticker[ticker] = losses + 1, at_ns
        self._forget(now_ns)
        return at_ns

    def repeated(self, now_ns: int) -> int:
        """Return how many markets are delayed now."""
        return sum(
            losses > AT_ONCE and now_ns - requested_ns <= _CALM_NS for losses, requested_ns in self._by_ticker.values()
        )

    def _forget(self, now_ns: int) -> None:
        if len(self._by_ticker) > self._forget_above:
            kept = {ticker: each for ticker, each in self._by_ticker.items() if now_ns - each[1] <= _CALM_NS}
            self._by_ticker, self._forget_above = kept, max(_FEW, 2 * len(kept))


class SnapshotChecks:
    """Queues snapshot requests for subscribed markets, each repeated until its snapshot comes."""

    def __init__(self, every_ns: int, again_ns: int) -> None:
        """Limit the requests: one batch in `every_ns`, one market once in `again_ns`."""
        self._every_ns = every_ns
        self._again_ns = again_ns
        self._waiting: dict[str, None] = {}
        self._requested_ns: dict[str, int] = {}
        self._last_ns: int | None = None

    def request(self, tickers: Iterable[str]) -> None:
        """Queue these markets until their next snapshot."""
        self._waiting.update(dict.fromkeys(tickers))

    def clear(self, ticker: str) -> None:
        """Remove a market whose new snapshot came."""
        self._waiting.pop(ticker, None)

    def forget(self, ticker: str) -> None:
        """Remove a market that is no longer subscribed."""
        self._waiting.pop(ticker, None)
        self._requested_ns.pop(ticker, None)

    def due(self, now_ns: int, most: int) -> tuple[str, ...]:
        """Return the markets to request now, at most `most`; they count as requested."""
        if not self._waiting or (self._last_ns is not None and now_ns - self._last_ns < self._every_ns):
            return ()
        long_ago = now_ns - self._again_ns
        due: list[str] = []
        for ticker in self._waiting:
            if self._requested_ns.get(ticker, long_ago) <= long_ago:
                due.append(ticker)
                if len(due) >= most:
                    break
        if due:
            self._last_ns = now_ns
            self._requested_ns.update(dict.fromkeys(due, now_ns))
        return tuple(due)
