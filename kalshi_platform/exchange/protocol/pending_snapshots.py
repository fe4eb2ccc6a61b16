"""Markets without a valid snapshot: since when, how often asked, and which stay mute. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kalshi_platform.exchange.protocol.relapses import Relapses


@dataclass
class Wait:
    """A wanted market without a valid snapshot. `since_ns` None: its command is not made yet."""

    after_loss: bool
    since_ns: int | None = None
    asked: int = 0
    ask_at_ns: int | None = None
    """When its command is to be made: it was asked for too often of late."""


class SnapshotWaits:
    """Each market waits, is asked for again after a deadline, and is reported when it stays mute."""

    def __init__(self, deadline_ns: int, attempts: int) -> None:
        self.by_ticker: dict[str, Wait] = {}
        self.to_ask: dict[str, None] = {}
        self.unanswered: set[str] = set()
        self.refused: set[str] = set()
        """Those of the unanswered that the exchange said no to."""
        self.relapses = Relapses()
        self._deadline_ns = deadline_ns
        self._attempts = attempts

    def begin(self, ticker: str, *, after_loss: bool) -> None:
        """The market is wanted; its command is still to be made."""
        self.by_ticker[ticker] = Wait(after_loss)

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
                self.by_ticker[ticker] = Wait(after_loss=True, ask_at_ns=ask_at_ns)
                continue
            self.by_ticker[ticker] = Wait(after_loss=True, since_ns=now_ns)
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

    def begin_anew(self, tickers: Iterable[str]) -> None:
        """Their subscription died: all of them wait for the next one."""
        for ticker in tickers:
            wait = self.by_ticker.setdefault(ticker, Wait(after_loss=True))
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
