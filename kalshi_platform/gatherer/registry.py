"""Which markets to follow now, and when that changes by itself. Pure: the caller brings the time.

Kalshi announces neither opening nor closing by the clock, so both are scheduled from `open_time` and `close_time`.
A market is wanted from a little before it opens until it is closed; one whose close_time passed is to be confirmed by
REST, because close times move.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from kalshi_platform.gatherer.settings import MarketFilter
from kalshi_platform.market.times import US_PER_S

OPEN_LEAD_US = 60 * US_PER_S
"""A market is subscribed this long before its open_time, so that its first delta finds us listening."""
TRADING = frozenset({"active", "inactive"})
OVER = frozenset({"closed", "determined", "disputed", "amended", "finalized", "vanished"})
COMBO_PREFIX = "KXMVE"


_ENDED_FOR_US = 120 * US_PER_S
"""How long an announced end outweighs an answer that still says active: REST lags behind the announcement."""


class Listed(Protocol):
    """What the registry needs to know of a market: a MarketInfo, or a row of the catalog."""

    @property
    def ticker(self) -> str: ...
    @property
    def event_ticker(self) -> str: ...
    @property
    def series_ticker(self) -> str | None: ...
    @property
    def status(self) -> str: ...
    @property
    def open_time_us(self) -> int | None: ...
    @property
    def close_time_us(self) -> int | None: ...
    @property
    def exchange_index(self) -> int: ...
    @property
    def mve_collection_ticker(self) -> str | None: ...


@dataclass
class _Entry:
    status: str
    open_time_us: int | None
    close_time_us: int | None
    exchange_index: int
    admitted: bool
    confirm_at_us: int | None = None


class Registry:
    """Markets in memory. Thread-safe."""

    def __init__(self, market_filter: MarketFilter, close_grace_s: float = 5.0) -> None:
        self._filter = market_filter
        self._grace_us = int(close_grace_s * US_PER_S)
        self._markets: dict[str, _Entry] = {}
        self._series_of_event: dict[str, str] = {}
        self._category: dict[str, str] = {}
        self._ended: dict[str, int | None] = {}
        self._lock = threading.Lock()

    def learn(self, categories: Mapping[str, str], series_of_event: Mapping[str, str]) -> None:
        """Remember the category of each series, and the series of each event, for a filter that asks for them."""
        with self._lock:
            self._category.update(categories)
            self._series_of_event.update(series_of_event)

    def update(self, infos: Iterable[Listed]) -> int:
        """Take what is known of markets; return how many differ from before in what matters here."""
        changed = 0
        with self._lock:
            for info in infos:
                if info.ticker in self._ended and info.status not in OVER:
                    continue
                old = self._markets.get(info.ticker)
                new = _Entry(
                    info.status,
                    info.open_time_us,
                    info.close_time_us,
                    info.exchange_index,
                    self._admits(info),
                    self._confirm_at(info),
                )
                if old is not None and _facts(old) == _facts(new):
                    continue
                if old is None and info.status in OVER:
                    continue
                changed += 1
                self._markets[info.ticker] = new
        return changed

    def _confirm_at(self, info: Listed) -> int | None:
        """When REST is to be asked whether the market opened or closed by the clock."""
        moment_us = info.open_time_us if info.status == "initialized" else info.close_time_us
        return None if moment_us is None else moment_us + self._grace_us

    def knows(self, ticker: str) -> bool:
        """Whether the market was heard of (and not forgotten after its end)."""
        with self._lock:
            return ticker in self._markets

    def end(self, ticker: str) -> None:
        """The exchange announced that a market is over, whatever the catalog still says."""
        with self._lock:
            self._markets.pop(ticker, None)
            self._ended[ticker] = None

    def reopen(self, ticker: str) -> None:
        """The exchange announced that a market trades again: believe the catalog."""
        with self._lock:
            self._ended.pop(ticker, None)

    def wanted(self, now_us: int) -> dict[str, int]:
        """Markets to follow now: ticker → exchange_index."""
        with self._lock:
            self._forget(now_us)
            return {
                ticker: entry.exchange_index
                for ticker, entry in self._markets.items()
                if entry.admitted and _is_due(entry, now_us)
            }

    def forget(self, now_us: int) -> None:
        """Let go of markets that are over. `wanted` does it, too; who never asks that has to call this now and then."""
        with self._lock:
            self._forget(now_us)

    def _forget(self, now_us: int) -> None:
        for ticker in [ticker for ticker, entry in self._markets.items() if entry.status in OVER]:
            del self._markets[ticker]
        for ticker, until_us in list(self._ended.items()):
            if until_us is None:
                self._ended[ticker] = now_us + _ENDED_FOR_US
            elif until_us <= now_us:
                del self._ended[ticker]

    def to_confirm(self, now_us: int, again_after_s: float = 15.0) -> list[str]:
        """Admitted markets whose open_time or close_time passed: ask REST. Each comes up again later, until its status
        says so."""
        with self._lock:
            due = [
                ticker
                for ticker, entry in self._markets.items()
                if entry.admitted
                and entry.status not in OVER
                and entry.confirm_at_us is not None
                and entry.confirm_at_us <= now_us
            ]
            for ticker in due:
                self._markets[ticker].confirm_at_us = now_us + int(again_after_s * US_PER_S)
            return due

    def counts(self) -> Mapping[str, int]:
        """Known markets by status."""
        with self._lock:
            counts: dict[str, int] = {}
            for entry in self._markets.values():
                counts[entry.status] = counts.get(entry.status, 0) + 1
            return counts

    def _admits(self, info: Listed) -> bool:
        series = info.series_ticker or self._series_of_event.get(info.event_ticker) or _prefix(info.event_ticker)
        return admits(self._filter, info, series, self._category.get(series))


def admits(market_filter: MarketFilter, info: Listed, series: str, category: str | None) -> bool:
    """Whether the filter lets this market in. A category that is not known yet is not admitted."""
    if not market_filter.include_combos and is_combo(info):
        return False
    if market_filter.series and not any(fnmatchcase(series, pattern) for pattern in market_filter.series):
        return False
    if market_filter.categories and category not in market_filter.categories:
        return False
    return not market_filter.tickers or any(fnmatchcase(info.ticker, pattern) for pattern in market_filter.tickers)


def is_combo(info: Listed) -> bool:
    """Whether a market is a combination of others (multivariate)."""
    return bool(info.mve_collection_ticker) or info.ticker.startswith(COMBO_PREFIX)


def _facts(entry: _Entry) -> tuple[object, ...]:
    return (entry.status, entry.open_time_us, entry.close_time_us, entry.exchange_index, entry.admitted)


def _is_due(entry: _Entry, now_us: int) -> bool:
    if entry.status in TRADING:
        return True
    if entry.status != "initialized":
        return False
    return entry.open_time_us is None or entry.open_time_us - OPEN_LEAD_US <= now_us


def _prefix(event_ticker: str) -> str:
    """The series of an event by Kalshi's way of naming: everything before the first dash."""
    return event_ticker.partition("-")[0]
