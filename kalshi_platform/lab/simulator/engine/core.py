"""The exchange without its sockets: venue, activity, scenario, subscriptions, faults and ledger tied together."""

from __future__ import annotations

import random
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.lab.simulator.engine import listing
from kalshi_platform.lab.simulator.engine.activity import Activity
from kalshi_platform.lab.simulator.engine.book import SIDES
from kalshi_platform.lab.simulator.engine.faults import FaultBoard
from kalshi_platform.lab.simulator.engine.payloads import encode
from kalshi_platform.lab.simulator.engine.publish import Publisher
from kalshi_platform.lab.simulator.engine.scenario import Scenario
from kalshi_platform.lab.simulator.engine.subscriptions import Router
from kalshi_platform.lab.simulator.engine.truth import TruthLedger
from kalshi_platform.lab.simulator.engine.universe import Market
from kalshi_platform.lab.simulator.engine.venue import Venue
from kalshi_platform.lab.simulator.settings import SimulatorSettings

LONGEST_CATCH_UP_S = 0.25
"""Of the machine: what could not be published for longer is never."""
STEP_US = 1_000_000
MOST_STEPS = 500
"""Time passes in steps of at most a second of the exchange (of a hole in time: in so many), whatever its pace."""


class Exchange:
    """Owns the state; everything runs on the server's one event loop. Implements the sessions' `Feed`."""

    def __init__(self, settings: SimulatorSettings, clock: Clock, *, empty: bool = False) -> None:
        self.settings = settings
        self.clock = clock
        self.rate = settings.rate
        self.backpressure = settings.backpressure
        self.board = FaultBoard()
        self.router = Router()
        self.truth = TruthLedger(settings.truth)
        self.publisher = Publisher(self.router, self.truth, self._suppress)
        self.venue = Venue(self.publisher, random.Random(settings.seed), trades_kept=settings.trades_kept)  # noqa: S311
        self.activity = Activity(self.venue, random.Random(settings.seed + 1))  # noqa: S311
        self.scenario = Scenario(
            self.venue,
            random.Random(settings.seed + 2),  # noqa: S311
            settings.scenario,
            visible_delay_us=round(settings.rest_visible_delay_s * 1_000_000),
        )
        self._credit = 0.0
        self._advanced_ns = clock.now_ns()
        self._advanced_us = self.now_us()
        if not empty:
            listing.populate(
                self.venue, self.activity, random.Random(settings.seed + 3),  # noqa: S311
                markets=settings.markets, combos=settings.combos, now_us=self.now_us(),
            )  # fmt: skip
            self.write_books("first")

    # --- time ----------------------------------------------------------------------------------------------------

    def now_us(self) -> int:
        """Return the exchange's clock in µs since the epoch, injected skew included."""
        return self.clock.now_ns() // 1_000 + self.board.skew_us(self.clock.monotonic(), "messages")

    def handshake_ms(self) -> int:
        """Return the time that signatures are judged by, in ms."""
        return (self.clock.now_ns() // 1_000 + self.board.skew_us(self.clock.monotonic(), "handshake")) // 1_000

    @property
    def exchange_active(self) -> bool:
        """False while an injected closure lasts."""
        return not self.board.active("exchange_inactive", self.clock.monotonic())

    @property
    def trading_active(self) -> bool:
        """False in an injected trading pause; books stand still, orders keep resting."""
        return self.exchange_active and not self.board.active("exchange_pause", self.clock.monotonic())

    # --- progress ------------------------------------------------------------------------------------------------

    def advance(self, *, hold: bool, most: int = 5_000) -> bool:
        """Publish what is due (at most `most` messages); returns whether more is due.

        `hold` lets time pass without messages.
        """
        now_ns, now_us = self.clock.now_ns(), self.now_us()
        due_s, self._advanced_ns = max(0, now_ns - self._advanced_ns) / 1e9, now_ns
        from_us, self._advanced_us = min(self._advanced_us, now_us), now_us
        budget = self._budget(due_s, most)
        if hold:
            budget = 0
        steps = min(MOST_STEPS, max(1, -(-(now_us - from_us) // STEP_US)))
        done, begun_us = 0, from_us
        for step in range(1, steps + 1):
            until_us = from_us + (now_us - from_us) * step // steps
            if self.exchange_active:
                self.scenario.advance(until_us)
            share = budget * step // steps - done
            if share > 0:
                done += self.activity.run(begun_us, until_us, share)
            begun_us = until_us
        if budget > 0:
            self._credit -= done
            self.truth.spill()
        return not hold and self._credit >= most

    def catch_up(self) -> None:
        """Publish what is due before a reader asks, where much happens between two ticks of the machine."""
        if self.clock.pace() > 1:
            self.advance(hold=False)

    def _budget(self, due_s: float, most: int) -> int:
        """Return how many messages are due, after `due_s` more seconds of the exchange."""
        if not self.trading_active or self.rate <= 0:
            self._credit = 0.0
            return 0
        longest = max(1.0, self.rate * LONGEST_CATCH_UP_S * self.clock.pace())
        self._credit = min(self._credit + due_s * self.rate, longest)
        return min(int(self._credit), most)

    def set_rate(self, rate: float) -> None:
        """Change the venue's messages per second; 0 pauses generation."""
        self.rate = max(0.0, rate)
        self._credit = 0.0

    # --- Feed ----------------------------------------------------------------------------------------------------

    def market(self, ticker: str) -> Market | None:
        """Return a listed market."""
        return self.venue.markets.get(ticker)

    def market_by_id(self, market_id: str) -> Market | None:
        """Return a listed market by its UUID."""
        return self.venue.by_id.get(market_id)

    def current_ticker(self, market: Market) -> bytes:
        """Return the body of the market's current ticker."""
        return self.venue.initial_ticker(market, self.now_us())

    # --- ledger --------------------------------------------------------------------------------------------------

    def write_books(self, phase: str) -> None:
        """Note every level of every book."""
        if self.truth.enabled:
            rows = [
                (phase, market.ticker, SIDES[side], price, size)
                for market in self.venue.market_list
                for side in (0, 1)
                for price, size in market.book.sorted_levels(side)
            ]
            self.truth.write("books", rows)

    def close(self) -> None:
        """Write the last books, markets and faults, and finish the ledger."""
        if self.truth.enabled:
            self.truth.spill(everything=True)
            self.write_books("last")
            markets = [
                (m.ticker, m.status, m.result, m.settlement_e4, m.open_us, m.close_us) for m in self.venue.market_list
            ]
            self.truth.write("markets", markets)
            faults = [
                (f.id, f.kind, f.at_us, f.hits, encode(f.params).decode(), encode(f.effects).decode())
                for f in self.board.faults
            ]
            self.truth.write("faults", faults)
        self.truth.close()

    def _suppress(self, kind: str, msg: dict[str, Any]) -> bool:
        event_type = msg.get("event_type", kind)
        for fault in self.board.active("suppress_lifecycle", self.clock.monotonic()):
            if event_type in fault.params.get("event_types", ("created",)):
                fault.hit({"event_type": event_type, "ticker": msg.get("market_ticker", msg.get("event_ticker", ""))})
                return True
        return False
