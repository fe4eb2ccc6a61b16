"""The scenario clock: markets are announced, open and close by the clock, are determined and settled.

Pure: `advance` is told the time. Some of the markets that the scenario brings forth have a fate: a determination that
is disputed and made again, a scalar result, or a provisional market in which nothing happens and that then disappears.
Other lifecycle events (a pause, a moved close, changed metadata, grids and fees) come in turn, at the configured rate,
to markets of the scenario's own.
"""

from __future__ import annotations

import heapq
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kalshi_platform.lab.simulator.engine import universe
from kalshi_platform.lab.simulator.engine.transitions import SECOND_US, Transitions, WrongState
from kalshi_platform.lab.simulator.engine.universe import Event, Market
from kalshi_platform.lab.simulator.settings import ScenarioSettings

if TYPE_CHECKING:
    from random import Random

    from kalshi_platform.lab.simulator.engine.venue import Venue

__all__ = ["FATES", "MISCHIEF", "Scenario", "WrongState"]

MINUTE_US = 60 * SECOND_US
FATES = ("plain", "disputed", "scalar", "provisional")
MISCHIEF = ("deactivated", "close_date_updated", "metadata_updated", "price_level_structure_updated", "fee")
FINEST = "deci_cent"


class Scenario(Transitions):
    """Drives the lives of markets."""

    def __init__(self, venue: Venue, rng: Random, settings: ScenarioSettings, *, visible_delay_us: int) -> None:
        super().__init__(venue, rng, settings, visible_delay_us=visible_delay_us)
        self._next_birth_us: int | None = None
        self._next_mischief_us: int | None = None
        self._next_check_us = 0
        self._born: dict[str, str] = {}
        self._mischief_turn = 0
        self._befallen: set[tuple[str, str]] = set()
        # When a market may have something to do, as (µs, number, ticker). An entry that went stale does no harm.
        self._agenda: list[tuple[int, int, str]] = []
        self._entries = 0
        self._known = 0

    def change(self, **values: Any) -> None:
        """Change settings of the scenario by name; markets that are listed keep the times that they have."""
        self._settings = replace(self._settings, **values)
        self._next_birth_us = self._next_mischief_us = None

    def advance(self, now_us: int) -> None:
        """Let everything happen that is due by `now_us`; cheap when nothing is."""
        if now_us < self._next_check_us:
            return
        self._next_check_us = now_us + SECOND_US // 20
        settings = self._settings
        if settings.births_per_minute > 0:
            if self._next_birth_us is None:
                self._next_birth_us = now_us + round(MINUTE_US / settings.births_per_minute / 4)
            elif now_us >= self._next_birth_us:
                self._next_birth_us = now_us + round(MINUTE_US / settings.births_per_minute)
                self._birth(now_us)
        if settings.mischief_per_minute > 0 and now_us >= (self._next_mischief_us or 0):
            if self._next_mischief_us is not None:
                self._mischief(now_us)
            self._next_mischief_us = now_us + round(MINUTE_US / settings.mischief_per_minute)
        self._clockwork(now_us)

    # --- the clock -----------------------------------------------------------------------------------------------

    def _clockwork(self, now_us: int) -> None:
        listed = self._venue.market_list
        while self._known < len(listed):  # listed by others than the scenario
            self._known += 1
            self._changed(listed[self._known - 1])
        while self._agenda and self._agenda[0][0] <= now_us:
            market = self._venue.markets[heapq.heappop(self._agenda)[2]]
            due_us = self._due_us(market)
            if due_us is None:
                continue
            if due_us <= now_us:
                self._act(market, now_us)
            self._changed(market)

    def _changed(self, market: Market) -> None:
        due_us = self._due_us(market)
        if due_us is not None:
            self._entries += 1
            heapq.heappush(self._agenda, (due_us, self._entries, market.ticker))

    def _due_us(self, market: Market) -> int | None:
        """Return when the clock next does something to a market; None when it never does."""
        status, fate = market.status, self._born.get(market.ticker)
        if status == universe.INITIALIZED:
            return min(market.open_us, market.close_us)
        if status == universe.ACTIVE:
            return market.close_us
        if status == universe.INACTIVE:
            return min(market.close_us, market.reactivate_us or market.close_us)
        if status == universe.CLOSED and fate is not None:
            return market.close_us + self._after(self._settings.determine_after_s)
        if status == universe.DISPUTED and fate is not None:
            return (market.determined_us or 0) + self._after(self._settings.determine_after_s)
        if status == universe.DETERMINED and fate == "disputed":
            return (market.determined_us or 0) + self._after(self._settings.settle_after_s) // 2
        if status in (universe.DETERMINED, universe.AMENDED) and not market.has_vanished:
            return (market.determined_us or 0) + market.settle_after_s * SECOND_US
        return None

    def _act(self, market: Market, now_us: int) -> None:
        status, fate = market.status, self._born.get(market.ticker)
        if status == universe.INITIALIZED and now_us < market.close_us:
            self.open(market, now_us)
        elif status in (universe.INITIALIZED, universe.ACTIVE, universe.INACTIVE) and market.close_us <= now_us:
            self._close(market, now_us)
        elif status == universe.INACTIVE:
            self.activate(market, now_us)
        elif status == universe.CLOSED and fate == "scalar":
            self.determine(market, now_us, "scalar", 100 * self._rng.randrange(1, 100))
        elif status == universe.CLOSED:
            self.determine(market, now_us, self._rng.choice(("yes", "no")))
        elif status == universe.DETERMINED and fate == "disputed":
            self.dispute(market, now_us)
        elif status == universe.DISPUTED:
            self.determine(market, now_us, "no" if market.result == "yes" else "yes")
        else:
            self.settle(market, now_us)

    @staticmethod
    def _after(seconds: float) -> int:
        return round(seconds * SECOND_US)

    # --- births and mischief -------------------------------------------------------------------------------------

    def _birth(self, now_us: int) -> None:
        settings = self._settings
        event: Event | None = None
        for _ in range(settings.markets_per_birth):
            life_s = settings.life_s * (0.5 + self._rng.random())
            fate = FATES[len(self._born) % len(FATES)]
            market = self.create(
                now_us, event=event, open_in_s=settings.open_after_s, close_in_s=settings.open_after_s + life_s,
                provisional=fate == "provisional", scalar=fate == "scalar",
                weight=0.0 if fate == "provisional" else 0.2,
            )  # fmt: skip
            self._born[market.ticker] = fate
            event = self._venue.events[market.event_ticker]
        if settings.combos:
            combo = self.create(
                now_us, open_in_s=settings.open_after_s, close_in_s=settings.open_after_s + settings.life_s, combo=True
            )
            self._born[combo.ticker] = "plain"

    def _mischief(self, now_us: int) -> None:
        active = [
            market
            for market in map(self._venue.markets.__getitem__, self._born)
            if market.status == universe.ACTIVE and not market.is_combo
        ]
        kind = MISCHIEF[self._mischief_turn % len(MISCHIEF)]
        self._mischief_turn += 1
        # Each kind befalls a market (an event, for fees) once: most of these messages carry no time, so a second one of
        # the same content could not be told from the first by anybody.
        free = [market for market in active if (kind, _subject(kind, market)) not in self._befallen]
        if kind == "price_level_structure_updated":
            # Only ever finer, so that resting orders stay on the grid.
            free = [market for market in free if market.structure != FINEST]
        if not free:
            return
        market = self._rng.choice(free)
        self._befallen.add((kind, _subject(kind, market)))
        if kind == "deactivated":
            self.deactivate(market, now_us, for_s=3.0)
        elif kind == "close_date_updated":
            self.move_close(market, now_us, market.close_us + 5 * SECOND_US)
        elif kind == "metadata_updated":
            self.change_metadata(market, now_us, market.strike + 0.05, rename=self._mischief_turn % 2 == 0)
        elif kind == "price_level_structure_updated":
            self.change_grid(market, now_us, FINEST)
        else:
            self.change_fees(self._venue.events[market.event_ticker], now_us)


def _subject(kind: str, market: Market) -> str:
    return market.event_ticker if kind == "fee" else market.ticker
