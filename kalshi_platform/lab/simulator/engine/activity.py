"""Seeded market activity: quotes, cancels, sweeps and trades over the quoting markets.

Activity follows Zipf weights, and every eighth step goes to the next market in rotation, so that each moves now and
then. Books stay uncrossed and never go below zero. About 85 of 100 messages are deltas; tickers follow changes of the
top of a book.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from kalshi_platform.lab.simulator.engine.book import NO, ONE_DOLLAR_E4, YES
from kalshi_platform.lab.simulator.engine.grids import positions, prices
from kalshi_platform.lab.simulator.engine.universe import Market
from kalshi_platform.lab.simulator.engine.venue import TickerOutcome

if TYPE_CHECKING:
    from random import Random

    from kalshi_platform.lab.simulator.engine.venue import Venue

WHOLE_SIZES = (100, 500, 1_000, 1_000, 2_000, 2_500, 5_000, 10_000, 10_000, 25_000, 100_000)
ROTATION = 8
MOST_LEVELS = 48


class Activity:
    """Produces messages on a venue, with a random generator of its own."""

    def __init__(self, venue: Venue, rng: Random) -> None:
        self._venue = venue
        self._rng = rng
        self._random = rng.random
        self._version = -1
        self._weights: list[float] = []
        self._batch: list[Market] = []
        self._rotation = 0
        self._step = 0
        self._late_tickers: dict[str, Market] = {}

    def run(self, from_us: int, to_us: int, budget: int) -> int:
        """Publish about `budget` messages with exchange times in (from_us, to_us]; returns how many."""
        venue = self._venue
        done = 0
        span = max(0, to_us - from_us)
        for market in list(self._late_tickers.values()):
            del self._late_tickers[market.ticker]
            if market.is_quoting:
                done += self._ticker(market, venue.stamp(from_us))
        # Where no book can move at all (each side crossed out by the other) steps come to nothing.
        for _ in range(4 * budget + 16):
            if done >= budget or not venue.quoting:
                break
            us = venue.stamp(from_us + span * (done + 1) // budget)
            done += self._act(self._pick(), us)
        return done

    def seed_book(self, market: Market, orders: int) -> None:
        """Put resting orders into an empty book without publishing anything (the state before the first message)."""
        for _ in range(orders):
            change = self._quote(market, self._rng.choice(market.sides), cancels=False)
            if change is not None:
                market.book.apply(*change)

    def _pick(self) -> Market:
        venue = self._venue
        if self._version != venue.quoting_version:
            self._version = venue.quoting_version
            self._weights = list(accumulate(market.weight for market in venue.quoting))
            self._batch = []
        self._step += 1
        if self._step % ROTATION == 0:
            self._rotation = (self._rotation + 1) % len(venue.quoting)
            return venue.quoting[self._rotation]
        if not self._batch:
            self._batch = self._rng.choices(venue.quoting, cum_weights=self._weights, k=256)
        return self._batch.pop()

    def _act(self, market: Market, us: int) -> int:
        draw = self._random()
        if draw < 0.035 and (market.book.best[YES] or market.book.best[NO]):
            done = self._trade(market, us)
        elif draw < 0.10:
            done = self._sweep(market, us)
        else:
            done = self._change(market, us, self._quote(market, self._side(market)))
        return done + self._ticker(market, us)

    def _side(self, market: Market) -> int:
        return market.sides[0] if len(market.sides) == 1 else int(self._random() < 0.5)

    def _ticker(self, market: Market, us: int) -> int:
        if not market.book.is_touched:
            return 0
        outcome = self._venue.print_ticker(market, us)
        if outcome is TickerOutcome.TOO_EARLY:
            self._late_tickers[market.ticker] = market
        return int(outcome is TickerOutcome.PUBLISHED)

    def _change(self, market: Market, us: int, change: tuple[int, int, int] | None) -> int:
        if change is None:
            return 0
        self._venue.change(market, us, *change)
        return 1

    def _size(self) -> int:
        random = self._random
        if random() < 0.7:
            return WHOLE_SIZES[int(random() * len(WHOLE_SIZES))]
        return 1 + int(random() ** 2 * 20_000)

    def _quote(self, market: Market, side: int, *, cancels: bool = True) -> tuple[int, int, int] | None:
        """Return one order added to, or taken from, a level near the top: (side, price_e4, delta_e2)."""
        random = self._random
        book = market.book
        own = book.levels[side]
        grid, places = prices(market.structure), positions(market.structure)
        if cancels and len(own) >= MOST_LEVELS:
            worst = min(own)
            return side, worst, -own[worst]
        limit = ONE_DOLLAR_E4 - book.best[1 - side]
        best = book.best[side]
        if best:
            place = places.get(best)  # a price that an older, coarser grid allowed may not stand on this one
            index = (bisect_left(grid, best) if place is None else place) + 1 - int(random() * 24)
        else:
            fair = market.fair_e4 if side == YES else ONE_DOLLAR_E4 - market.fair_e4
            index = bisect_left(grid, fair) - 1 - int(random() * 5)
        place = places.get(limit)
        highest = (bisect_left(grid, limit) if place is None else place) - 1
        index = max(0, min(index, highest))
        price = grid[index]
        size = own.get(price, 0)
        if cancels and size and random() < 0.6:
            part = size if size <= 100 or random() < 0.4 else 1 + int(random() * (size - 1))
            return side, price, -part
        if price >= limit:
            return None
        return side, price, self._size()

    def _sweep(self, market: Market, us: int) -> int:
        """Several changes in one microsecond; some of them equal in every field."""
        rng = self._rng
        side = self._side(market)
        done = 0
        if rng.random() < 0.4:
            change = self._quote(market, side, cancels=False)
            if change is not None:
                for _ in range(2 + int(rng.random() * 2)):
                    done += self._change(market, us, change)
            return done
        for _ in range(2 + int(rng.random() * 5)):
            done += self._change(market, us, self._quote(market, side))
        return done

    def _trade(self, market: Market, us: int) -> int:
        rng = self._rng
        venue = self._venue
        book = market.book
        maker = YES if not book.best[NO] or (book.best[YES] and rng.random() < 0.5) else NO
        taker = 1 - maker
        if rng.random() < 0.01:
            yes_price = book.best[YES] if maker == YES else ONE_DOLLAR_E4 - book.best[NO]
            venue.print_trade(market, us, yes_price_e4=yes_price, count_e2=self._size(), taker_side=taker, block=True)
            return 1
        done = 0
        for _ in range(1 + int(rng.random() ** 3 * 3)):
            price = book.best[maker]
            if not price:
                break
            count = min(self._size(), book.levels[maker][price])
            fills = (count // 2, count // 2) if count % 2 == 0 and rng.random() < 0.3 else (count,)
            for fill in fills:
                yes_price = price if maker == YES else ONE_DOLLAR_E4 - price
                venue.change(market, us, maker, price, -fill)
                venue.print_trade(market, us, yes_price_e4=yes_price, count_e2=fill, taker_side=taker)
                done += 2
            if count < self._size():
                break
        market.fair_e4 = max(200, min(9_800, market.fair_e4 + int((rng.random() - 0.5) * 200)))
        return done
