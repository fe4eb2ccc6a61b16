"""Decides which markets to follow now, and when that changes by the clock. Pure: the caller passes the time.

Kalshi announces neither opening nor closing by the clock, so both are scheduled from `open_time` and `close_time`.
A market is desired from a little before it opens until it is closed. After its close_time REST must confirm the end,
because close times move (docs.kalshi.com, getting_started/market_lifecycle, read 2026-11-22).
"""

from __future__ import annotations

import heapq
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Protocol

from kalshi_platform.gatherer.settings import MarketFilter
from kalshi_platform.market.times import US_PER_S

OPEN_LEAD_US = 60 * US_PER_S
"""A market is subscribed this long before its open_time, so that its first delta is received."""
TRADING = frozenset({"active", "inactive"})
OVER = frozenset({"closed", "determined", "disputed", "amended", "finalized", "vanished"})
COMBO_PREFIX = "KXMVE"
_AT_ONCE = 1_000
_ENDED_FOR_US = 120 * US_PER_S
"""How long an announced end overrules an answer that still says active: REST lags behind the announcement."""


class Listed(Protocol):
    """Describes the fields of a market that the registry needs: of a MarketInfo, or a row of the catalog."""

    @property
    def ticker(self) -> str:
        """Return the name of the market."""

    @property
    def event_ticker(self) -> str:
        """Return the name of its event."""

    @property
    def series_ticker(self) -> str | None:
        """Return the name of its series, where that is known."""

    @property
    def status(self) -> str:
        """Return one of Kalshi's eight statuses."""

    @property
    def open_time_us(self) -> int | None:
        """Return when it opens, in microseconds since the epoch."""

    @property
    def close_time_us(self) -> int | None:
        """Return when it closes, in microseconds since the epoch."""

    @property
    def exchange_index(self) -> int:
        """Return the number of its exchange shard."""

    @property
    def mve_collection_ticker(self) -> str | None:
        """Return the name of its collection of combos, None for others."""


@dataclass(slots=True)
class _Entry:
    status: str
    open_time_us: int | None
    close_time_us: int | None
    exchange_index: int
    admitted: bool
    confirm_at_us: int | None = None


class Registry:
    """Keeps the markets in memory, about 0.4 kB each. Thread-safe.

    Changes by the clock are queued by time, so that a call costs what has changed since the last one, not what is
    known.
    """

    def __init__(self, market_filter: MarketFilter, close_grace_s: float = 5.0) -> None:
        self._filter = market_filter
        self._grace_us = int(close_grace_s * US_PER_S)
        self._markets: dict[str, _Entry] = {}
        self._counts: Counter[str] = Counter()
        self._desired: dict[str, int] = {}
        self._published: Mapping[str, int] = {}
        self._is_published = True
        # (time in µs, ticker); entries that no longer fit their market are skipped.
        self._openings: list[tuple[int, str]] = []
        self._confirmations: list[tuple[int, str]] = []
        self._series_of_event: dict[str, str] = {}
        self._category: dict[str, str] = {}
        self._ended: dict[str, int | None] = {}
        self._now_us = 0
        self._lock = threading.Lock()

    def set_parents(self, categories: Mapping[str, str], series_of_event: Mapping[str, str]) -> None:
        """Set the category of each series, and the series of each event, for a filter that uses them."""
        with self._lock:
            self._category.update(categories)
            self._series_of_event.update(series_of_event)

    def update(self, infos: Iterable[Listed]) -> int:
        """Update markets; return how many changed in a field that matters here.

        `infos` may come slowly, from a listing of the exchange: the lock is not held between its parts.
        """
        changed, iterator = 0, iter(infos)
        while part := list(islice(iterator, _AT_ONCE)):
            with self._lock:
                changed += sum(self._update_one(info) for info in part)
        return changed

    def _update_one(self, info: Listed) -> bool:
        ticker, status = info.ticker, sys.intern(info.status)
        if ticker in self._ended and status not in OVER:
            return False
        old = self._markets.get(ticker)
        if status in OVER:
            self._drop(ticker)
            return old is not None
        open_us, close_us, index = info.open_time_us, info.close_time_us, info.exchange_index
        admitted = self._admits(info)
        if old is not None:
            before = (old.status, old.open_time_us, old.close_time_us, old.exchange_index, old.admitted)
            if before == (status, open_us, close_us, index, admitted):
                return False
            self._counts[old.status] -= 1
        # When REST is to confirm that the market opened or closed by the clock.
        moment_us = open_us if status == "initialized" else close_us
        entry = _Entry(status, open_us, close_us, index, admitted)
        self._markets[ticker] = entry
        self._counts[status] += 1
        if admitted and moment_us is not None:
            self._confirm(ticker, entry, moment_us + self._grace_us)
        self._update_desired(ticker, entry)
        return True

    def _update_desired(self, ticker: str, entry: _Entry) -> None:
        """Add one market to the desired ones, remove it, or schedule it, by its present fields."""
        if entry.admitted and _is_due(entry, self._now_us):
            if self._desired.get(ticker) != entry.exchange_index:
                self._desired[ticker] = entry.exchange_index
                self._is_published = False
            return
        if self._desired.pop(ticker, None) is not None:
            self._is_published = False
        if entry.admitted and entry.status == "initialized" and entry.open_time_us is not None:
            heapq.heappush(self._openings, (entry.open_time_us - OPEN_LEAD_US, ticker))

    def _confirm(self, ticker: str, entry: _Entry, at_us: int) -> None:
        entry.confirm_at_us = at_us
        heapq.heappush(self._confirmations, (at_us, ticker))

    def _drop(self, ticker: str) -> None:
        entry = self._markets.pop(ticker, None)
        if entry is not None:
            self._counts[entry.status] -= 1
        if self._desired.pop(ticker, None) is not None:
            self._is_published = False

    def contains(self, ticker: str) -> bool:
        """Return whether the market is known and not over."""
        with self._lock:
            return ticker in self._markets

    def mark_ended(self, ticker: str) -> None:
        """Remove a market that the exchange announced to be over, whatever its status in the catalog."""
        with self._lock:
            self._drop(ticker)
            self._ended[ticker] = None

    def clear_ended(self, ticker: str) -> None:
        """Accept the catalog's status of a market again, because the exchange announced that it trades."""
        with self._lock:
            self._ended.pop(ticker, None)

    def desired_markets(self, now_us: int) -> Mapping[str, int]:
        """Return the markets to follow now: ticker → exchange_index; the same object while nothing has changed."""
        with self._lock:
            self._now_us = now_us
            self._expire_ended(now_us)
            while self._openings and self._openings[0][0] <= now_us:
                _, ticker = heapq.heappop(self._openings)
                entry = self._markets.get(ticker)
                if entry is not None:
                    self._update_desired(ticker, entry)
            if not self._is_published:
                self._published = dict(self._desired)
                self._is_published = True
            return self._published

    @property
    def last_desired_markets(self) -> Mapping[str, int]:
        """Return what `desired_markets` returned last; empty before."""
        return self._published

    def expire_ended(self, now_us: int) -> None:
        """Remove announced ends that expired, as `desired_markets` does; called regularly where that is not."""
        with self._lock:
            self._expire_ended(now_us)

    def _expire_ended(self, now_us: int) -> None:
        for ticker, until_us in list(self._ended.items()):
            if until_us is None:
                self._ended[ticker] = now_us + _ENDED_FOR_US
            elif until_us <= now_us:
                del self._ended[ticker]

    def due_for_refresh(self, now_us: int, again_after_s: float = 15.0) -> list[str]:
        """Return the admitted markets whose open_time or close_time passed without a change of their status.

        REST must be read for them. Each is returned again after `again_after_s`, until its status changed.
        """
        due: list[str] = []
        with self._lock:
            while self._confirmations and self._confirmations[0][0] <= now_us:
                at_us, ticker = heapq.heappop(self._confirmations)
                entry = self._markets.get(ticker)
                if entry is not None and entry.confirm_at_us == at_us:
                    due.append(ticker)
                    self._confirm(ticker, entry, now_us + int(again_after_s * US_PER_S))
        return due

    def counts(self) -> Mapping[str, int]:
        """Return the number of known markets by status."""
        with self._lock:
            return {status: count for status, count in self._counts.items() if count}

    def _admits(self, info: Listed) -> bool:
        series = info.series_ticker or self._series_of_event.get(info.event_ticker) or _prefix(info.event_ticker)
        return admits(self._filter, info, series, self._category.get(series))


def admits(market_filter: MarketFilter, info: Listed, series: str, category: str | None) -> bool:
    """Return whether the filter admits this market; one whose category is not known yet is not admitted."""
    if not market_filter.shard.holds(info.ticker):
        return False
    if not market_filter.include_combos and is_combo(info):
        return False
    if market_filter.series and not any(fnmatchcase(series, pattern) for pattern in market_filter.series):
        return False
    if market_filter.categories and category not in market_filter.categories:
        return False
    return not market_filter.tickers or any(fnmatchcase(info.ticker, pattern) for pattern in market_filter.tickers)


def is_combo(info: Listed) -> bool:
    """Return whether a market is a combination of others (multivariate)."""
    return bool(info.mve_collection_ticker) or info.ticker.startswith(COMBO_PREFIX)


def _is_due(entry: _Entry, now_us: int) -> bool:
    if entry.status in TRADING:
        return True
    if entry.status != "initialized":
        return False
    return entry.open_time_us is None or entry.open_time_us - OPEN_LEAD_US <= now_us


def _prefix(event_ticker: str) -> str:
    """Return the series of an event by Kalshi's naming: everything before the first dash."""
    return event_ticker.partition("-")[0]
