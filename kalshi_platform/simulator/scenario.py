"""The scenario clock: markets are announced, open and close by the clock, are determined and settled.

Pure: `advance` is told the time. Other lifecycle events (deactivation, moved close dates, metadata and grid changes)
happen at the configured rate to markets that the scenario itself brought forth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kalshi_platform.errors import PermanentError
from kalshi_platform.simulator import listing, payloads, universe
from kalshi_platform.simulator.book import ONE_DOLLAR_E4
from kalshi_platform.simulator.settings import ScenarioSettings
from kalshi_platform.simulator.subscriptions import LIFECYCLE
from kalshi_platform.simulator.universe import Event, Market

if TYPE_CHECKING:
    from random import Random

    from kalshi_platform.simulator.venue import Venue

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
MISCHIEF = ("deactivated", "close_date_updated", "metadata_updated", "price_level_structure_updated", "fee")


class WrongState(PermanentError):
    """A market cannot do this in its present status."""


class Scenario:
    """Drives the lives of markets. `visible_delay_us` is how long REST hides a newborn one."""

    def __init__(self, venue: Venue, rng: Random, settings: ScenarioSettings, *, visible_delay_us: int) -> None:
        self._venue = venue
        self._rng = rng
        self._settings = settings
        self._visible_delay_us = visible_delay_us
        self._number = 100
        self._next_birth_us: int | None = None
        self._next_mischief_us: int | None = None
        self._determine_at: dict[str, int] = {}
        self._reactivate_at: dict[str, int] = {}
        self._next_check_us = 0
        self._own: set[str] = set()

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

    def _clockwork(self, now_us: int) -> None:
        for market in self._venue.market_list:
            status = market.status
            if status == universe.FINALIZED:
                continue
            if status == universe.INITIALIZED and market.open_us <= now_us < market.close_us:
                self._set_status(market, universe.ACTIVE)
            elif status in (universe.INITIALIZED, universe.ACTIVE, universe.INACTIVE) and market.close_us <= now_us:
                self._close(market, now_us)
            elif status == universe.CLOSED and self._determine_at.get(market.ticker, now_us + 1) <= now_us:
                self.determine(market, now_us, self._rng.choice(("yes", "no")))
            elif (
                status == universe.DETERMINED
                and (market.determined_us or 0) + market.settle_after_s * SECOND_US <= now_us
            ):
                self.settle(market, now_us)
            elif status == universe.INACTIVE and self._reactivate_at.get(market.ticker, now_us + 1) <= now_us:
                self.activate(market, now_us)

    # --- transitions, also driven by the control channel ---------------------------------------------------------

    def create(
        self, now_us: int, *, event: Event | None = None, ticker: str | None = None, open_in_s: float = 0.0,
        close_in_s: float = 3_600.0, visible_in_s: float | None = None, structure: str | None = None,
        automatic: bool = False,
    ) -> Market:  # fmt: skip
        """Announce a market (and its event, when none is given).

        `automatic` lets it be determined by the clock after its close.
        """
        venue = self._venue
        close_us = now_us + round(close_in_s * SECOND_US)
        if event is None:
            template = listing.TEMPLATES[self._number % len(listing.TEMPLATES)]
            series = listing.add_series(venue, template, now_us)
            self._number += 1
            event = listing.add_event(venue, series, self._number * 1_000, now_us, close_us)
            venue.announce("event_lifecycle", event.ticker, venue.stamp(now_us), payloads.event_created(event, series))
        series = venue.series[event.series_ticker]
        market = listing.make_market(
            event, series, len(event.market_tickers), self._rng,
            created_us=now_us, open_us=now_us + round(open_in_s * SECOND_US), close_us=close_us,
        )  # fmt: skip
        market.ticker = ticker or market.ticker
        market.structure = structure or market.structure
        market.settle_after_s = max(1, round(self._settings.settle_after_s))
        market.weight = 0.2
        delay_us = self._visible_delay_us if visible_in_s is None else round(visible_in_s * SECOND_US)
        market.visible_us = now_us + delay_us
        if market.ticker in venue.markets:
            raise WrongState(f"market {market.ticker} exists already")
        if open_in_s <= 0:
            market.status = universe.ACTIVE
        venue.add_market(market)
        if automatic:
            self._determine_at[market.ticker] = close_us + round(self._settings.determine_after_s * SECOND_US)
        venue.announce(LIFECYCLE, market.ticker, venue.stamp(now_us), payloads.created(market, event))
        return market

    def open(self, market: Market, now_us: int) -> None:
        """Open by the clock: no event."""
        self._require(market, universe.INITIALIZED)
        market.open_us = min(market.open_us, now_us)
        self._set_status(market, universe.ACTIVE)

    def close(self, market: Market, now_us: int) -> None:
        """Close now: an early close is announced by `close_date_updated`; the close itself by nothing.

        Orders are cancelled.
        """
        self._require(market, universe.INITIALIZED, universe.ACTIVE, universe.INACTIVE)
        if market.close_us > now_us:
            self.move_close(market, now_us, now_us)
        self._close(market, now_us)

    def _close(self, market: Market, now_us: int) -> None:
        self._venue.cancel_all(market, self._venue.stamp(now_us))
        self._set_status(market, universe.CLOSED)

    def determine(self, market: Market, now_us: int, result: str) -> None:
        """Publish the result, `yes` or `no`."""
        self._require(market, universe.CLOSED)
        market.result = result
        market.settlement_e4 = ONE_DOLLAR_E4 if result == "yes" else 0
        market.determined_us = now_us
        self._set_status(market, universe.DETERMINED)
        self._announce(
            market, now_us, "determined", determination_ts=now_us // SECOND_US, result=result,
            settlement_value=payloads.DOLLARS[market.settlement_e4],
        )  # fmt: skip

    def settle(self, market: Market, now_us: int) -> None:
        """Settle a determined market."""
        self._require(market, universe.DETERMINED)
        market.settled_us = now_us
        self._set_status(market, universe.FINALIZED)
        self._announce(market, now_us, "settled", settled_ts=now_us // SECOND_US)

    def deactivate(self, market: Market, now_us: int, *, for_s: float | None = None) -> None:
        """Pause one market; its orders keep resting."""
        self._require(market, universe.ACTIVE)
        self._set_status(market, universe.INACTIVE)
        if for_s is not None:
            self._reactivate_at[market.ticker] = now_us + round(for_s * SECOND_US)
        self._announce(market, now_us, "deactivated", is_deactivated=True)

    def activate(self, market: Market, now_us: int) -> None:
        """End a pause; resting orders are cancelled."""
        self._require(market, universe.INACTIVE)
        self._venue.cancel_all(market, self._venue.stamp(now_us))
        self._set_status(market, universe.ACTIVE)
        self._announce(market, now_us, "activated", is_deactivated=False)

    def move_close(self, market: Market, now_us: int, close_us: int) -> None:
        """Move the close; reopens nothing."""
        market.close_us = close_us
        market.updated_us = now_us
        if market.ticker in self._determine_at:
            self._determine_at[market.ticker] = close_us + round(self._settings.determine_after_s * SECOND_US)
        self._announce(market, now_us, "close_date_updated", close_ts=close_us // SECOND_US)

    def change_metadata(self, market: Market, now_us: int, strike: float) -> None:
        """Change the strike."""
        market.strike = strike
        market.updated_us = now_us
        self._announce(market, now_us, "metadata_updated", strike_type="greater", floor_strike=strike)

    def change_grid(self, market: Market, now_us: int, structure: str) -> None:
        """Change the price grid in place; orders are preserved."""
        market.structure = structure
        market.updated_us = now_us
        self._announce(
            market, now_us, "price_level_structure_updated", price_level_structure=structure,
            price_ranges=payloads.price_ranges(structure),
        )  # fmt: skip

    # --- parts ---------------------------------------------------------------------------------------------------

    def _birth(self, now_us: int) -> None:
        settings = self._settings
        event: Event | None = None
        for _ in range(settings.markets_per_birth):
            life_s = settings.life_s * (0.5 + self._rng.random())
            market = self.create(
                now_us,
                event=event,
                open_in_s=settings.open_after_s,
                close_in_s=settings.open_after_s + life_s,
                automatic=True,
            )
            self._own.add(market.ticker)
            event = self._venue.events[market.event_ticker]

    def _mischief(self, now_us: int) -> None:
        candidates = [self._venue.markets[ticker] for ticker in sorted(self._own)]
        active = [market for market in candidates if market.status == universe.ACTIVE]
        if not active:
            return
        market = self._rng.choice(active)
        kind = self._rng.choice(MISCHIEF)
        if kind == "deactivated":
            self.deactivate(market, now_us, for_s=3.0)
        elif kind == "close_date_updated":
            self.move_close(market, now_us, market.close_us + 5 * SECOND_US)
        elif kind == "metadata_updated":
            self.change_metadata(market, now_us, market.strike + 0.05)
        elif kind == "price_level_structure_updated":
            # Only ever finer, so that resting orders stay on the grid.
            self.change_grid(market, now_us, "deci_cent")
        else:
            event = self._venue.events[market.event_ticker]
            event.fee_type_override = "flat" if event.fee_type_override is None else None
            event.updated_us = now_us
            msg = {
                "event_ticker": event.ticker,
                "fee_type_override": event.fee_type_override,
                "fee_multiplier_override": event.fee_multiplier_override,
            }
            self._venue.announce("event_fee_update", event.ticker, self._venue.stamp(now_us), msg)

    def _announce(self, market: Market, now_us: int, event_type: str, **members: Any) -> None:
        msg = {"market_ticker": market.ticker, "event_type": event_type, **members}
        self._venue.announce(LIFECYCLE, market.ticker, self._venue.stamp(now_us), msg)

    def _set_status(self, market: Market, status: str) -> None:
        market.status = status
        self._venue.refresh_quoting(market)

    @staticmethod
    def _require(market: Market, *statuses: str) -> None:
        if market.status not in statuses:
            raise WrongState(f"market {market.ticker} is {market.status}, not {' or '.join(statuses)}")
