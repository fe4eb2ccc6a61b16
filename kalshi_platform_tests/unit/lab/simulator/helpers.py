"""A small venue whose published messages are kept in a list."""

from __future__ import annotations

import random
from typing import Any

from kalshi_platform.lab.simulator.engine import listing
from kalshi_platform.lab.simulator.engine.activity import Activity
from kalshi_platform.lab.simulator.engine.universe import Market, Trade
from kalshi_platform.lab.simulator.engine.venue import Venue

START_US = 1_795_380_000_000_000


class ListSink:
    """Keeps everything published, in order, as (kind, …) tuples."""

    def __init__(self) -> None:
        self.published: list[tuple[Any, ...]] = []

    def delta(self, market: Market, us: int, side: int, price_e4: int, delta_e2: int) -> None:
        self.published.append(("delta", market.ticker, us, side, price_e4, delta_e2))

    def trade(self, market: Market, trade: Trade) -> None:
        self.published.append(("trade", market.ticker, trade.us, trade))

    def ticker(self, market: Market, us: int, body: bytes, *, initial: bool) -> None:
        self.published.append(("ticker", market.ticker, us, body, initial))

    def lifecycle(self, kind: str, ticker: str, us: int, msg: dict[str, Any]) -> None:
        self.published.append(("lifecycle", ticker, us, kind, msg))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [each for each in self.published if each[0] == kind]


class VenueFeed:
    """The sessions' view of a venue."""

    def __init__(self, venue: Venue, now_us: int = START_US) -> None:
        self._venue = venue
        self._now_us = now_us

    def market(self, ticker: str) -> Market | None:
        return self._venue.markets.get(ticker)

    def market_by_id(self, market_id: str) -> Market | None:
        return self._venue.by_id.get(market_id)

    def current_ticker(self, market: Market) -> bytes:
        return self._venue.initial_ticker(market, self._now_us)


def small_venue(markets: int = 10, seed: int = 1, sink: Any = None) -> tuple[Venue, Activity, Any]:
    """Return a populated venue, its activity and its sink."""
    sink = sink if sink is not None else ListSink()
    venue = Venue(sink, random.Random(seed))
    activity = Activity(venue, random.Random(seed + 1))
    listing.populate(venue, activity, random.Random(seed + 2), markets=markets, combos=1, now_us=START_US)
    return venue, activity, sink


def levels_of(venue: Venue) -> dict[tuple[str, int, int], int]:
    """Return every level of every book: (ticker, side, price_e4) → size_e2."""
    return {
        (market.ticker, side, price): size
        for market in venue.market_list
        for side in (0, 1)
        for price, size in market.book.levels[side].items()
    }
