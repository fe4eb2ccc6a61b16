"""The matching venue's state and everything that can happen in it; each happening is published once, to one sink.

Pure: times come in as µs of the exchange's clock, randomness as a seeded generator, and what is published goes to a
`Sink`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from kalshi_platform.lab.simulator.engine import payloads
from kalshi_platform.lab.simulator.engine.book import NO, YES
from kalshi_platform.lab.simulator.engine.candles import note_message, quote_of
from kalshi_platform.lab.simulator.engine.universe import Event, Market, Series, Trade

if TYPE_CHECKING:
    from random import Random


class TickerOutcome(Enum):
    """What became of an attempt to publish a ticker."""

    UNCHANGED = 0
    PUBLISHED = 1
    TOO_EARLY = 2


class Sink(Protocol):
    """Where published messages go: connections and the ground-truth ledger."""

    def delta(self, market: Market, us: int, side: int, price_e4: int, delta_e2: int) -> None:
        """Take one change of one level, already applied to the book."""

    def trade(self, market: Market, trade: Trade) -> None:
        """Take one trade."""

    def ticker(self, market: Market, us: int, body: bytes, *, initial: bool) -> None:
        """Take one ticker; `initial` ones answer a single subscriber and are not sent to the others."""

    def lifecycle(self, kind: str, ticker: str, us: int, msg: dict[str, Any]) -> None:
        """Take one lifecycle message; `kind` is the frame's `type`."""


def uuid_text(rng: Random) -> str:
    """Return a seeded version-4 UUID."""
    bits = (rng.getrandbits(128) & ~(0xF << 76 | 0x3 << 62)) | 0x4 << 76 | 0x2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Venue:
    """Series, events, markets, books and trades. `quoting` lists the markets in which orders move now."""

    def __init__(self, sink: Sink, rng: Random, *, trades_kept: int = 2_000_000) -> None:
        self.sink = sink
        self.rng = rng
        self.series: dict[str, Series] = {}
        self.events: dict[str, Event] = {}
        self.markets: dict[str, Market] = {}
        self.market_list: list[Market] = []  # only ever appended to, so that a page cursor stays valid
        self.by_id: dict[str, Market] = {}
        self.trades: list[Trade] = []
        self.trades_kept = trades_kept
        self.historical: list[Market] = []
        self.historical_trades: list[Trade] = []
        self.fee_changes: list[tuple[int, str, str | None, float | None]] = []  # µs, event, type, multiplier
        self.cutoff_us = 0
        self.quoting: list[Market] = []
        self.quoting_version = 0
        self._moving: set[str] = set()
        self.last_us = 0
        self.counts = {"delta": 0, "trade": 0, "ticker": 0, "lifecycle": 0}

    def stamp(self, now_us: int) -> int:
        """Return an exchange time for the next group of messages: `now_us`, and always later than the last one."""
        self.last_us = max(self.last_us + 1, now_us)
        return self.last_us

    # --- listing -------------------------------------------------------------------------------------------------

    def add_market(self, market: Market) -> None:
        """List a market; its event and series must exist."""
        self.markets[market.ticker] = market
        self.market_list.append(market)
        self.by_id[market.market_id] = market
        self.events[market.event_ticker].market_tickers.append(market.ticker)
        self.refresh_quoting(market)

    def refresh_quoting(self, market: Market) -> None:
        """Bring the list of moving markets in line with the market's status."""
        moves = market.is_quoting and not market.is_combo and market.weight > 0
        if moves == (market.ticker in self._moving):
            return
        if moves:
            self._moving.add(market.ticker)
            self.quoting.append(market)
        else:
            self._moving.discard(market.ticker)
            self.quoting.remove(market)
        self.quoting_version += 1

    def visible(self, ticker: str, now_us: int) -> Market | None:
        """Return the market as REST sees it: a newborn one is hidden for a short time, a vanished one for good."""
        market = self.markets.get(ticker)
        return market if market is not None and market.is_visible(now_us) else None

    # --- happenings ----------------------------------------------------------------------------------------------

    def change(self, market: Market, us: int, side: int, price_e4: int, delta_e2: int) -> None:
        """Apply one delta and publish it.

        Raises `BookViolation` and publishes nothing when the level would fall below zero.
        """
        before = quote_of(market)
        market.book.apply(side, price_e4, delta_e2)
        note_message(market, us, before)
        market.last_us = us
        self.counts["delta"] += 1
        self.sink.delta(market, us, side, price_e4, delta_e2)

    def print_trade(
        self, market: Market, us: int, *, yes_price_e4: int, count_e2: int, taker_side: int, block: bool = False
    ) -> Trade:
        """Record and publish one trade; its deltas are the caller's. Returns it."""
        trade = Trade(us, uuid_text(self.rng), market.ticker, yes_price_e4, count_e2, taker_side, block)
        self.record_trade(market, trade)
        self.sink.trade(market, trade)
        return trade

    def record_trade(self, market: Market, trade: Trade) -> None:
        """Take a trade into the market's figures and the REST tape."""
        note_message(market, trade.us, quote_of(market))
        market.last_us = trade.us
        market.last_price_e4 = trade.yes_price_e4
        market.last_size_e2 = trade.count_e2
        market.volume_e2 += trade.count_e2
        market.book.is_touched = True
        market.dollar_volume_e6 += trade.count_e2 * trade.yes_price_e4
        market.open_interest_e2 += trade.count_e2 // 2
        market.trades.append(trade)
        self.trades.append(trade)
        self.counts["trade"] += 1
        if len(self.trades) > self.trades_kept:
            self._forget_trades()

    def _forget_trades(self) -> None:
        del self.trades[: len(self.trades) // 2]
        oldest = self.trades[0].us
        for market in self.market_list:
            market.trades = [trade for trade in market.trades if trade.us >= oldest]

    def print_ticker(self, market: Market, us: int) -> TickerOutcome:
        """Publish the market's ticker if it differs from the last one, at most one a millisecond.

        The exchange names tickers by the millisecond: two of one market in one millisecond could not be told apart.
        """
        if not market.book.is_touched or (*market.book.top(), market.volume_e2) == market.ticker_top:
            return TickerOutcome.UNCHANGED
        if us // 1000 <= market.ticker_ms:
            return TickerOutcome.TOO_EARLY
        body = self._ticker_body(market, us)
        self.counts["ticker"] += 1
        self.sink.ticker(market, us, body, initial=False)
        return TickerOutcome.PUBLISHED

    def initial_ticker(self, market: Market, now_us: int) -> bytes:
        """Return the market's last ticker, making one when it never had any."""
        if market.ticker_body is None:
            us = self.stamp(now_us)
            self.sink.ticker(market, us, self._ticker_body(market, us), initial=True)
        body = market.ticker_body
        assert body is not None  # noqa: S101 - set by _ticker_body
        return body

    def _ticker_body(self, market: Market, us: int) -> bytes:
        market.ticker_top = (*market.book.top(), market.volume_e2)
        market.book.is_touched = False
        market.ticker_ms = us // 1000
        market.last_us = us
        market.ticker_body = payloads.ticker(market, us)
        return market.ticker_body

    def announce(self, kind: str, ticker: str, us: int, msg: dict[str, Any]) -> None:
        """Publish a lifecycle message."""
        self.counts["lifecycle"] += 1
        self.sink.lifecycle(kind, ticker, us, msg)

    def cancel_all(self, market: Market, us: int) -> int:
        """Cancel every resting order in one microsecond; returns how many deltas that took."""
        cancelled = 0
        for side in (YES, NO):
            for price, size in market.book.sorted_levels(side):
                self.change(market, us, side, price, -size)
                cancelled += 1
        return cancelled
