"""What can happen to a market in its life, each step announced as the exchange announces it.

Pure. The scenario clock and the control channel both act through these. Opening, closing and a dispute are announced by
nothing; everything else by one lifecycle message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kalshi_platform.errors import PermanentError
from kalshi_platform.lab.simulator.engine import listing, payloads, universe
from kalshi_platform.lab.simulator.engine.book import ONE_DOLLAR_E4
from kalshi_platform.lab.simulator.engine.grids import GRIDS
from kalshi_platform.lab.simulator.engine.subscriptions import LIFECYCLE
from kalshi_platform.lab.simulator.engine.universe import Event, Market
from kalshi_platform.lab.simulator.settings import ScenarioSettings

if TYPE_CHECKING:
    from random import Random

    from kalshi_platform.lab.simulator.engine.venue import Venue

SECOND_US = 1_000_000
RESULTS = ("yes", "no", "scalar")


class WrongState(PermanentError):
    """A market cannot do this in its present status, or not with these values."""


class Transitions:
    """Steps in the lives of markets. `visible_delay_us` is how long REST hides a newborn one."""

    def __init__(self, venue: Venue, rng: Random, settings: ScenarioSettings, *, visible_delay_us: int) -> None:
        self._venue = venue
        self._rng = rng
        self._settings = settings
        self._visible_delay_us = visible_delay_us
        self._number = 100

    def _changed(self, market: Market) -> None:
        """Called after each step; the clock looks at the market anew."""

    def create(
        self, now_us: int, *, event: Event | None = None, ticker: str | None = None, open_in_s: float = 0.0,
        close_in_s: float = 3_600.0, visible_in_s: float | None = None, structure: str | None = None,
        weight: float = 0.2, provisional: bool = False, scalar: bool = False, combo: bool = False,
    ) -> Market:  # fmt: skip
        """Announce a market (and its event, when none is given). With `weight` 0 no order ever comes to it."""
        venue = self._venue
        close_us = now_us + round(close_in_s * SECOND_US)
        event = event or self._new_event(now_us, close_us, combo=combo)
        series = venue.series[event.series_ticker]
        market = listing.make_market(
            event, series, len(event.market_tickers), self._rng,
            created_us=now_us, open_us=now_us + round(open_in_s * SECOND_US), close_us=close_us,
        )  # fmt: skip
        market.ticker = ticker or market.ticker
        market.structure = _known_grid(structure) if structure else market.structure
        market.settle_after_s = max(1, round(self._settings.settle_after_s))
        market.weight = weight
        market.legs = listing.combine(venue, self._number) if market.is_combo else ()
        market.is_provisional = provisional
        market.market_type = "scalar" if scalar else "binary"
        delay_us = self._visible_delay_us if visible_in_s is None else round(visible_in_s * SECOND_US)
        market.visible_us = now_us + delay_us
        if market.ticker in venue.markets:
            raise WrongState(f"market {market.ticker} exists already")
        if open_in_s <= 0:
            market.status = universe.ACTIVE
        venue.add_market(market)
        venue.announce(LIFECYCLE, market.ticker, venue.stamp(now_us), payloads.created(market, event))
        self._changed(market)
        return market

    def _new_event(self, now_us: int, close_us: int, *, combo: bool) -> Event:
        venue = self._venue
        template = listing.COMBO if combo else listing.TEMPLATES[self._number % len(listing.TEMPLATES)]
        series = listing.add_series(venue, template, now_us)
        self._number += 1
        event = listing.add_event(venue, series, self._number * 1_000, now_us, close_us)
        venue.announce("event_lifecycle", event.ticker, venue.stamp(now_us), payloads.event_created(event, series))
        return event

    def open(self, market: Market, now_us: int) -> None:
        """Open by the clock: no message."""
        self._require(market, universe.INITIALIZED)
        market.open_us = min(market.open_us, now_us)
        self._set_status(market, universe.ACTIVE)

    def close(self, market: Market, now_us: int) -> None:
        """Close now. An early close is announced by `close_date_updated`, the close itself by nothing.

        Orders are cancelled.
        """
        self._require(market, universe.INITIALIZED, universe.ACTIVE, universe.INACTIVE)
        if market.close_us > now_us:
            self.move_close(market, now_us, now_us)
        self._close(market, now_us)

    def _close(self, market: Market, now_us: int) -> None:
        self._venue.cancel_all(market, self._venue.stamp(now_us))
        self._set_status(market, universe.CLOSED)

    def reopen(self, market: Market, now_us: int, close_us: int) -> None:
        """Open a closed market again until `close_us`: `close_date_updated`, then `activated`; its book is empty."""
        self._require(market, universe.CLOSED)
        if close_us <= now_us:
            raise WrongState("a market reopens only until a later time")
        self.move_close(market, now_us, close_us)
        self._set_status(market, universe.ACTIVE)
        self._announce(market, now_us, "activated", is_deactivated=False)

    def determine(self, market: Market, now_us: int, result: str, settlement_e4: int | None = None) -> None:
        """Publish a result: `yes`, `no`, or `scalar` with the value of one yes contract.

        After a dispute this is the second determination; a provisional market in which nothing happened disappears.
        """
        self._require(market, universe.CLOSED, universe.DISPUTED)
        if result not in RESULTS:
            raise WrongState(f"a result is one of {', '.join(RESULTS)}")
        if result == "scalar":
            if settlement_e4 is None or not 0 <= settlement_e4 <= ONE_DOLLAR_E4:
                raise WrongState("a scalar result needs settlement_e4 within 0 and 10000")
            market.market_type = "scalar"
        else:
            settlement_e4 = ONE_DOLLAR_E4 if result == "yes" else 0
        is_second = market.status == universe.DISPUTED
        market.result = result
        market.settlement_e4 = settlement_e4
        market.determined_us = now_us
        market.has_vanished = market.is_provisional and market.volume_e2 == 0 and not is_second
        self._set_status(market, universe.AMENDED if is_second else universe.DETERMINED)
        self._announce(
            market, now_us, "determined", determination_ts=now_us // SECOND_US, result=result,
            settlement_value=payloads.DOLLARS[settlement_e4],
        )  # fmt: skip

    def dispute(self, market: Market, now_us: int) -> None:  # noqa: ARG002 - called as the other transitions are
        """Call a determination into question: no message; the market waits for a second one."""
        self._require(market, universe.DETERMINED)
        if market.has_vanished:
            raise WrongState(f"{market.ticker} is gone")
        self._set_status(market, universe.DISPUTED)

    def settle(self, market: Market, now_us: int) -> None:
        """Settle a determined market."""
        self._require(market, universe.DETERMINED, universe.AMENDED)
        market.settled_us = now_us
        self._set_status(market, universe.FINALIZED)
        self._announce(market, now_us, "settled", settled_ts=now_us // SECOND_US)

    def deactivate(self, market: Market, now_us: int, *, for_s: float | None = None) -> None:
        """Pause one market (`for_s` seconds, or until it is activated); its orders keep resting."""
        self._require(market, universe.ACTIVE)
        market.reactivate_us = None if for_s is None else now_us + round(for_s * SECOND_US)
        self._set_status(market, universe.INACTIVE)
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
        self._announce(market, now_us, "close_date_updated", close_ts=close_us // SECOND_US)
        self._changed(market)

    def change_metadata(self, market: Market, now_us: int, strike: float, *, rename: bool = False) -> None:
        """Change the strike, and with `rename` the words of the yes side too."""
        market.strike = strike
        market.updated_us = now_us
        more = {}
        if rename:
            market.yes_sub_title = f"Above {strike:.2f} after all"
            more = {"yes_sub_title": market.yes_sub_title}
        self._announce(market, now_us, "metadata_updated", **payloads.strike(market), **more)

    def change_grid(self, market: Market, now_us: int, structure: str) -> None:
        """Change the price grid in place; orders are preserved."""
        market.structure = _known_grid(structure)
        market.updated_us = now_us
        self._announce(
            market, now_us, "price_level_structure_updated", price_level_structure=structure,
            price_ranges=payloads.price_ranges(structure),
        )  # fmt: skip

    def change_fees(self, event: Event, now_us: int) -> None:
        """Put an event under fees of its own, or back under its series'."""
        is_own = event.fee_type_override is not None
        event.fee_type_override = None if is_own else "flat"
        event.fee_multiplier_override = None if is_own else 0.5
        event.updated_us = now_us
        self._venue.fee_changes.append((now_us, event.ticker, event.fee_type_override, event.fee_multiplier_override))
        msg = {
            "event_ticker": event.ticker,
            "fee_type_override": event.fee_type_override,
            "fee_multiplier_override": event.fee_multiplier_override,
        }
        self._venue.announce("event_fee_update", event.ticker, self._venue.stamp(now_us), msg)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _set_status(self, market: Market, status: str) -> None:
        market.status = status
        self._venue.refresh_quoting(market)
        self._changed(market)

    def _announce(self, market: Market, now_us: int, event_type: str, **members: Any) -> None:
        msg = {"market_ticker": market.ticker, "event_type": event_type, **members}
        self._venue.announce(LIFECYCLE, market.ticker, self._venue.stamp(now_us), msg)

    @staticmethod
    def _require(market: Market, *statuses: str) -> None:
        if market.status not in statuses:
            raise WrongState(f"{market.ticker} is {market.status}, not {' or '.join(statuses)}")


def _known_grid(structure: str) -> str:
    if structure not in GRIDS:
        raise WrongState(f"unknown price level structure {structure!r}; known: {', '.join(GRIDS)}")
    return structure
