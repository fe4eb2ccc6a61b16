"""Markets without a valid snapshot: since when, how often asked, and which stay mute. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kalshi_platform.backoff import exponential

AT_ONCE = 5
"""So many losses in a row cost no waiting."""
BASE_NS = 1_000_000_000
CAP_NS = 32_000_000_000
"""The longest wait is between this and twice as long."""
_CALM_NS = 30_000_000_000
# Fewer than that are not worth forgetting.
_FEW = 1_000


@dataclass
class PendingSnapshot:
    """A wanted market without a valid snapshot. `since_ns` None: its command is not made yet."""

    after_loss: bool
    since_ns: int | None = None
    asked: int = 0
    ask_at_ns: int | None = None
    """When its command is to be made: it was asked for too often of late."""


class PendingSnapshots:
    """Each market pending, is asked for again after a deadline, and is reported when it stays mute."""

    def __init__(self, deadline_ns: int, attempts: int) -> None:
        self.by_ticker: dict[str, PendingSnapshot] = {}
        self.to_ask: dict[str, None] = {}
        self.unanswered: set[str] = set()
        self.refused: set[str] = set()
        """Those of the unanswered that the exchange said no to."""
        self.relapses = RepeatedLosses()
        self._deadline_ns = deadline_ns
        self._attempts = attempts

    def begin(self, ticker: str, *, after_loss: bool) -> None:
        """The market is wanted; its command is still to be made."""
        self.by_ticker[ticker] = PendingSnapshot(after_loss)

    def forget(self, ticker: str) -> None:
        """The market is not wanted any more, or its snapshot came."""
        self.by_ticker.pop(ticker, None)
        self.to_ask.pop(ticker, None)
        self.unanswered.discard(ticker)
        self.refused.discard(ticker)

    def lost(self, tickers: Iterable[str], now_ns: int, *, ask_now: bool) -> None:
        """These markets lost a frame; those that wait already go on waiting."""
        for ticker in tickers:
            if ticker in self.by_ticker:
                continue
            ask_at_ns = self.relapses.lost(ticker, now_ns)
            if ask_at_ns > now_ns:
                self.by_ticker[ticker] = PendingSnapshot(after_loss=True, ask_at_ns=ask_at_ns)
                continue
            self.by_ticker[ticker] = PendingSnapshot(after_loss=True, since_ns=now_ns)
            if ask_now:
                self.to_ask[ticker] = None

    def gap_seen(self) -> None:
        """A snapshot under way may have been among the lost frames."""
        for wait in self.by_ticker.values():
            if wait.since_ns is not None:
                wait.after_loss = True

    def asked(self, tickers: Iterable[str], now_ns: int) -> None:
        """A command for these markets was made."""
        for ticker in tickers:
            wait = self.by_ticker.get(ticker)
            if wait is not None and wait.since_ns is None:
                wait.since_ns = now_ns

    def not_asked(self, ticker: str) -> None:
        """Its command was refused or lost and will be made again."""
        wait = self.by_ticker.get(ticker)
        if wait is not None:
            wait.since_ns = None

    def refuse(self, tickers: Collection[str]) -> None:
        """The exchange said no to these markets."""
        self.refused.update(tickers)
        self.unanswered.update(tickers)

    def restart_all(self, tickers: Iterable[str]) -> None:
        """Their subscription died: all of them wait for the next one."""
        for ticker in tickers:
            wait = self.by_ticker.setdefault(ticker, PendingSnapshot(after_loss=True))
            wait.since_ns = wait.ask_at_ns = None

    def overdue(self, now_ns: int) -> list[str]:
        """Queue what must be asked again; return the markets that are newly found to stay mute."""
        mute: list[str] = []
        for ticker, wait in self.by_ticker.items():
            if wait.ask_at_ns is not None and now_ns >= wait.ask_at_ns:
                wait.ask_at_ns, wait.since_ns = None, now_ns
                self.to_ask[ticker] = None
            if wait.since_ns == 0:
                wait.since_ns = now_ns
            if wait.since_ns is None or now_ns - wait.since_ns < self._deadline_ns or ticker in self.to_ask:
                continue
            wait.since_ns = now_ns
            if wait.asked < self._attempts:
                wait.asked += 1
                self.to_ask[ticker] = None
            elif ticker not in self.unanswered:
                self.unanswered.add(ticker)
                mute.append(ticker)
        return mute


class RepeatedLosses:
    """Of one connection. A market that kept its claim for half a minute after it was asked for begins anew."""

    def __init__(self) -> None:
        self._by_ticker: dict[str, tuple[int, int]] = {}
        self._forget_above = _FEW

    def lost(self, ticker: str, now_ns: int) -> int:
        """Note that a market lost its claim; return when it may be asked for (`now_ns`: at once)."""
        losses, asked_ns = self._by_ticker.get(ticker, (0, now_ns))
        if now_ns - asked_ns > _CALM_NS:
            losses = 0
        at_ns = now_ns
        if losses >= AT_ONCE:
            delay_ns = exponential(BASE_NS, CAP_NS, losses - AT_ONCE)
            at_ns = -(-(now_ns + delay_ns) // delay_ns) * delay_ns
        self._by_ticker[ticker] = losses + 1, at_ns
        self._forget(now_ns)
        return at_ns

    def repeated(self, now_ns: int) -> int:
        """How many markets are asked for more rarely now."""
        return sum(losses > AT_ONCE and now_ns - asked_ns <= _CALM_NS for losses, asked_ns in self._by_ticker.values())

    def _forget(self, now_ns: int) -> None:
        if len(self._by_ticker) > self._forget_above:
            kept = {ticker: each for ticker, each in self._by_ticker.items() if now_ns - each[1] <= _CALM_NS}
            self._by_ticker, self._forget_above = kept, max(_FEW, 2 * len(kept))


class SnapshotChecks:
    """Each market pending for a snapshot and is asked for again while it gets none; never twice within a while."""

    def __init__(self, every_ns: int, again_ns: int) -> None:
        """One batch is asked for in `every_ns`, one market once in `again_ns`."""
        self._every_ns = every_ns
        self._again_ns = again_ns
        self._waiting: dict[str, None] = {}
        self._asked_ns: dict[str, int] = {}
        self._last_ns: int | None = None

    def request(self, tickers: Iterable[str]) -> None:
        """These markets wait for their next snapshot."""
        self._waiting.update(dict.fromkeys(tickers))

    def clear(self, ticker: str) -> None:
        """The market has a new snapshot."""
        self._waiting.pop(ticker, None)

    def forget(self, ticker: str) -> None:
        """The market is not followed any more."""
        self._waiting.pop(ticker, None)
        self._asked_ns.pop(ticker, None)

    def due(self, now_ns: int, most: int) -> tuple[str, ...]:
        """The markets to ask for now, at most so many; they count as asked."""
        if not self._waiting or (self._last_ns is not None and now_ns - self._last_ns < self._every_ns):
            return ()
        long_ago = now_ns - self._again_ns
        due: list[str] = []
        for ticker in self._waiting:
            if self._asked_ns.get(ticker, long_ago) <= long_ago:
                due.append(ticker)
                if len(due) >= most:
                    break
        if due:
            self._last_ns = now_ns
            self._asked_ns.update(dict.fromkeys(due, now_ns))
        return tuple(due)
