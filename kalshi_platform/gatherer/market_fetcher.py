"""Markets that must be asked for one by one: just created (404 at first), changed, closed or settled.

A market is due at some moment and is asked again, ever later, until the answer fits what was announced. Many due at
once are asked for in one request.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kalshi_platform.clock import Clock
from kalshi_platform.errors import DatabaseUnavailable, KalshiPlatformError, MarketNotYetVisible
from kalshi_platform.gatherer.registry import OVER, Registry
from kalshi_platform.market.catalog import EventInfo, MarketInfo
from kalshi_platform.market.records import LifecycleEvent

_ONE_BY_ONE = 5
_AT_ONCE = 100
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0
# The announcement comes before the read side of REST knows.
_SETTLING_S = 0.3
_ENDS = frozenset({"determined", "settled"})
_OF_EVENTS = frozenset({"event_created", "event_lifecycle", "event_fee_update"})
_log = logging.getLogger(__name__)


class MarketsClient(Protocol):
    """The part of the REST client that is needed here."""

    def market(self, ticker: str) -> MarketInfo: ...

    def event(self, event_ticker: str) -> EventInfo: ...

    def iter_markets(
        self,
        status: str | None = None,
        min_updated_ts: int | None = None,
        mve_filter: str | None = "exclude",
        tickers: Iterable[str] | None = None,
    ) -> Iterator[MarketInfo]: ...


class MarketStore(Protocol):
    """The part of the catalog store that is needed here; raises DatabaseUnavailable."""

    def upsert_markets(self, infos: Iterable[MarketInfo], known_at: datetime) -> object: ...

    def upsert_events(self, infos: Iterable[EventInfo], known_at: datetime) -> object: ...

    def mark_vanished(self, tickers: Sequence[str], at: datetime) -> object: ...


@dataclass
class _Wish:
    due: float
    attempt: int = 0
    expect_over: bool = False


class MarketFetcher:
    """Fetches from a thread of its own; everything else may call `ask` and `heard`."""

    def __init__(
        self,
        rest: MarketsClient,
        store: MarketStore,
        registry: Registry,
        clock: Clock,
        attempts: int,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called after the registry learned something."""
        self.fetched = 0
        self.not_visible = 0
        self._rest = rest
        self._store = store
        self._registry = registry
        self._clock = clock
        self._attempts = attempts
        self._on_change = on_change
        self._wishes: dict[str, _Wish] = {}
        self._events: dict[str, None] = {}
        self._wake = threading.Condition()

    def ask(self, tickers: Iterable[str], *, in_s: float = 0.0, expect_over: bool = False) -> None:
        """Fetch these markets soon. `expect_over`: an answer that says active is asked again."""
        with self._wake:
            due = self._clock.monotonic() + in_s
            for ticker in tickers:
                wish = self._wishes.get(ticker)
                if wish is None:
                    self._wishes[ticker] = _Wish(due, expect_over=expect_over)
                else:
                    wish.due = min(wish.due, due)
                    wish.expect_over = wish.expect_over or expect_over
            self._wake.notify_all()

    def heard(self, event: LifecycleEvent) -> None:
        """React to an announcement: end what is over, ask for what is new or changed. Returns at once."""
        if event.event_type in _OF_EVENTS:
            with self._wake:
                self._events[event.ticker] = None
                self._wake.notify_all()
        elif event.event_type in _ENDS:
            self._registry.end(event.ticker)
            self._on_change()
            self.ask([event.ticker], in_s=_SETTLING_S, expect_over=True)
        else:
            if event.event_type == "activated":
                self._registry.reopen(event.ticker)
            self.ask([event.ticker], in_s=0.0 if event.event_type == "created" else _SETTLING_S)

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop`."""
        while not stop.is_set():
            tickers, events = self._due()
            try:
                if events:
                    self._fetch_events(events)
                if len(tickers) > _ONE_BY_ONE:
                    self._fetch_many(tickers)
                else:
                    for ticker in tickers:
                        self._fetch_one(ticker)
            except KalshiPlatformError as error:
                # Whatever was not fetched is due again, after a pause.
                _log.warning("fetching markets: %s", error)
                with self._wake:
                    now = self._clock.monotonic()
                    for wish in self._wishes.values():
                        wish.due = max(wish.due, now + 1.0)
                    self._events.update(dict.fromkeys(events))
                self._clock.wait(stop, 1.0)

    def _due(self) -> tuple[list[str], list[str]]:
        with self._wake:
            now = self._clock.monotonic()
            if not self._events and not any(wish.due <= now for wish in self._wishes.values()):
                next_due = min((wish.due for wish in self._wishes.values()), default=now + 0.5)
                self._wake.wait(min(0.5, max(0.01, next_due - now)))
                now = self._clock.monotonic()
            events = list(self._events)
            self._events.clear()
            due = [ticker for ticker, wish in self._wishes.items() if wish.due <= now]
            return due[:_AT_ONCE], events

    def _fetch_one(self, ticker: str) -> None:
        known_at = self._clock.now()
        try:
            info = self._rest.market(ticker)
        except MarketNotYetVisible:
            self._missing(ticker)
            return
        self._got([info], known_at)

    def _fetch_many(self, tickers: Sequence[str]) -> None:
        known_at = self._clock.now()
        infos = list(self._rest.iter_markets(mve_filter=None, tickers=tickers))
        self._got(infos, known_at)
        # An absence from a list proves nothing; a 404 for the market itself does.
        for ticker in sorted(set(tickers) - {info.ticker for info in infos})[:_ONE_BY_ONE]:
            self._fetch_one(ticker)

    def _fetch_events(self, tickers: Sequence[str]) -> None:
        known_at = self._clock.now()
        found = []
        for ticker in tickers:
            try:
                found.append(self._rest.event(ticker))
            except KalshiPlatformError as error:
                _log.info("event %s: %s; the next sync brings it", ticker, error)
        if found:
            self._keep(lambda: self._store.upsert_events(found, known_at))

    def _got(self, infos: Sequence[MarketInfo], known_at: datetime) -> None:
        if not infos:
            return
        self.fetched += len(infos)
        self._registry.update(infos)
        self._on_change()
        self._keep(lambda: self._store.upsert_markets(infos, known_at))
        with self._wake:
            for info in infos:
                wish = self._wishes.get(info.ticker)
                if wish is None:
                    continue
                if wish.expect_over and info.status not in OVER and wish.attempt + 1 < self._attempts:
                    self._later(wish)
                else:
                    del self._wishes[info.ticker]

    def _missing(self, ticker: str) -> None:
        self.not_visible += 1
        with self._wake:
            wish = self._wishes[ticker]
            if wish.attempt + 1 < self._attempts:
                self._later(wish)
                return
            del self._wishes[ticker]
        if self._registry.knows(ticker) or wish.expect_over:
            # Provisional markets are deleted after their end.
            _log.info("market %s is gone from the exchange", ticker)
            self._registry.end(ticker)
            self._on_change()
            self._keep(lambda: self._store.mark_vanished([ticker], self._clock.now()))
        else:
            _log.warning("market %s did not become visible; the next sync brings it", ticker)

    def _later(self, wish: _Wish) -> None:
        wish.due = self._clock.monotonic() + min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2**wish.attempt)
        wish.attempt += 1

    def _keep(self, write: Callable[[], object]) -> None:
        try:
            write()
        except DatabaseUnavailable as error:
            _log.warning("the catalog was not written (%s); the next sync does", error)
