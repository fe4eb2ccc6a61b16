"""Serve a recording through the same protocol.

Each market's book starts as the recording's first snapshot of it; deltas recorded before that snapshot are inside it
and are not played again. Every client subscription
gets the current book and then the recorded messages (`msg` unchanged, recorded exchange times), with sids and sequence
numbers of its own connection. Recorded acks and errors are not replayed; the server makes its own.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable

from kalshi_platform.lab.simulator.engine import listing, universe
from kalshi_platform.lab.simulator.engine.book import NO, SIDES, YES, Book, BookViolation
from kalshi_platform.lab.simulator.engine.candles import note_message, quote_of
from kalshi_platform.lab.simulator.engine.core import Exchange
from kalshi_platform.lab.simulator.engine.subscriptions import BOOK, COMBO_LIFECYCLE, LIFECYCLE
from kalshi_platform.lab.simulator.engine.universe import Event, Market, Trade
from kalshi_platform.lab.simulator.replay.capture import recorded_levels, scaled
from kalshi_platform.lab.simulator.replay.recorded import Json, Recorded, Source
from kalshi_platform.lab.simulator.settings import ReplaySettings

_log = logging.getLogger(__name__)

YEARS_US = 10 * 365 * 86_400_000_000
OTHER_CHANNELS_GRACE_S = 2.0
MESSAGES_PER_FLUSH = 500
CANDLES_KEPT_US = 26 * 3_600_000_000
"""A replay of weeks holds the candles of about a day."""


class Playback:
    """Fills an empty exchange from a recording and plays it."""

    def __init__(self, exchange: Exchange, settings: ReplaySettings, source: Source) -> None:
        self._exchange = exchange
        self._settings = settings
        self._source = source
        self.played = 0
        self.skipped = 0
        self.is_started = False
        self.is_finished = False
        self._pending_snapshot: set[str] = set()
        self._populate()

    def state(self) -> Json:
        """Return progress for the control channel."""
        return {
            "replay": {
                **self._source.describe(), "played": self.played, "skipped": self.skipped,
                "started": self.is_started, "finished": self.is_finished,
                "complete_subscribers": self.complete_subscribers(),
            }
        }  # fmt: skip

    def complete_subscribers(self) -> int:
        """Return how many subscribers hold a snapshot of every market of the capture (one that shards counts once)."""
        routes = self._exchange.router.by_ticker[BOOK]
        return min((len(routes.get(market.ticker, ())) for market in self._exchange.venue.market_list), default=0)

    async def run(self, flush: Callable[[], Awaitable[None]]) -> None:
        """Wait for subscribers, then play all frames.

        `flush` writes to the sockets and returns when readers keep up.
        """
        await self._wait_for_subscribers()
        self.is_started = True
        clock, speed = self._exchange.clock, self._settings.speed
        began, first_ns = clock.monotonic(), None
        next_cleaning_us = 0
        for number, frame in enumerate(self._source.messages()):
            if first_ns is None:
                first_ns = frame.received_at_ns
            if speed > 0:
                due = began + (frame.received_at_ns - first_ns) / 1e9 / speed
                ahead = due - clock.monotonic()
                if ahead > 0.001:
                    await flush()
                    await asyncio.sleep(ahead)
            if number % MESSAGES_PER_FLUSH == MESSAGES_PER_FLUSH - 1:
                await flush()
                self._exchange.truth.spill()
            if frame.us > next_cleaning_us:
                next_cleaning_us = frame.us + CANDLES_KEPT_US // 24
                self._forget_candles(frame.us - CANDLES_KEPT_US)
            self._play(frame)
        await flush()
        self._exchange.truth.spill(everything=True)
        self.is_finished = True
        _log.info("replay_finished played=%d skipped=%d", self.played, self.skipped)

    async def _wait_for_subscribers(self) -> None:
        wanted = self._settings.wait_subscribers
        while self.complete_subscribers() < wanted:  # noqa: ASYNC110 - subscriptions are plain state without events
            await asyncio.sleep(0.01)
        # Gatherers keep trades and tickers on a connection of their own, which may be a moment later.
        others = self._source.channels - {BOOK}
        deadline = self._exchange.clock.monotonic() + OTHER_CHANNELS_GRACE_S
        while wanted and self._exchange.clock.monotonic() < deadline:
            if all(self._subscribers(channel) >= wanted for channel in others):
                break
            await asyncio.sleep(0.01)

    def _subscribers(self, channel: str) -> int:
        router = self._exchange.router
        sessions = {id(each.session) for each in router.everything.get(channel, ())}
        for routes in router.by_ticker[channel].values():
            sessions.update(id(each.session) for each in routes)
        return len(sessions)

    # --- the state before the first message ----------------------------------------------------------------------

    def _populate(self) -> None:
        state = self._source.start()
        for ticker, market_id in state.markets.items():
            self._list_market(ticker, market_id, state.first_us)
        for ticker, msg in state.books.items():
            self._set_book(self._exchange.venue.markets[ticker].book, msg)
        self._pending_snapshot = set(state.pending)
        self._exchange.write_books("first")

    def _forget_candles(self, before_us: int) -> None:
        for market in self._exchange.venue.market_list:
            for minute in [each for each in market.minutes if each * 60_000_000 < before_us]:
                del market.minutes[minute]

    def _list_market(self, ticker: str, market_id: str, first_us: int) -> None:
        venue = self._exchange.venue
        parts = ticker.split("-")
        event_ticker = "-".join(parts[:-1]) if len(parts) > 1 else ticker
        is_combo = ticker.startswith("KXMVE")
        template = listing.Template(parts[0], parts[0], "Sports", "custom", 1 if is_combo else 0, "linear_cent")
        series = listing.add_series(venue, template, first_us)
        close_us = max(self._exchange.now_us(), first_us) + YEARS_US
        if event_ticker not in venue.events:
            venue.events[event_ticker] = Event(
                event_ticker,
                series.ticker,
                event_ticker,
                event_ticker,
                close_us,
                first_us,
                series.exchange_index,
                is_combo,
            )
        created_us = first_us - 86_400_000_000
        venue.add_market(
            Market(
                ticker, event_ticker, series.ticker, market_id, series.structure, 0.0, series.exchange_index,
                created_us=created_us, updated_us=created_us, visible_us=created_us, open_us=created_us,
                close_us=close_us, settle_after_s=3_600, status=universe.ACTIVE, is_combo=is_combo,
                yes_sub_title=parts[-1], weight=0.0,
            )
        )  # fmt: skip

    @staticmethod
    def _set_book(book: Book, msg: Json) -> None:
        for side in (YES, NO):
            book.replace(side, recorded_levels(msg, side))

    # --- playing -------------------------------------------------------------------------------------------------

    def _play(self, frame: Recorded) -> None:
        venue, publisher = self._exchange.venue, self._exchange.publisher
        ticker, us = frame.ticker, frame.us
        market = venue.markets.get(ticker)
        if frame.kind == "orderbook_snapshot" and market is not None:
            self._play_snapshot(market, frame)
            return
        if frame.kind == "orderbook_delta" and ticker in self._pending_snapshot:
            self.skipped += 1
            return
        venue.last_us = max(venue.last_us, us)
        self.played += 1
        if frame.change is not None and market is not None:
            self._play_delta(market, frame, frame.change)
            return
        if frame.kind == "trade" and market is not None:
            self._note_trade(market, frame)
        elif frame.kind == "ticker" and market is not None:
            market.ticker_body = frame.body
            publisher.note_ticker(us, ticker, frame.body, initial=False)
            venue.counts["ticker"] += 1
        elif frame.channel in (LIFECYCLE, COMBO_LIFECYCLE):
            if frame.msg.get("event_type") == "created" and ticker and market is None:
                self._list_market(ticker, str(uuid.uuid5(uuid.NAMESPACE_OID, ticker)), us)
            publisher.note_lifecycle(frame.kind, ticker, us, frame.msg, suppressed=False)
            venue.counts["lifecycle"] += 1
        publisher.recorded(frame.channel, frame.kind, ticker, frame.body)

    def _play_snapshot(self, market: Market, frame: Recorded) -> None:
        """The first one is the state everybody has.

        A later one is sent again only where the recorded deltas did not lead to it.
        """
        if frame.ticker in self._pending_snapshot:
            self._pending_snapshot.discard(frame.ticker)
            return
        reached = [dict(market.book.levels[side]) for side in (YES, NO)]
        self._set_book(market.book, frame.msg)
        if reached != [market.book.levels[side] for side in (YES, NO)]:
            self._exchange.publisher.recorded(BOOK, frame.kind, frame.ticker, frame.body)
            self.played += 1

    def _play_delta(self, market: Market, frame: Recorded, change: tuple[int, int, int]) -> None:
        side, price, delta_e2 = change
        publisher = self._exchange.publisher
        market.last_us = frame.us
        self._exchange.venue.counts["delta"] += 1
        publisher.note_delta(frame.us, frame.ticker, SIDES[side], price, delta_e2)
        before = quote_of(market)
        try:
            market.book.apply(side, price, delta_e2)
        except BookViolation as problem:
            _log.warning('recorded_delta_does_not_fit ticker=%s problem="%s"', frame.ticker, problem)
        note_message(market, frame.us, before)
        publisher.recorded_delta(frame.ticker, frame.body, side, price)

    def _note_trade(self, market: Market, frame: Recorded) -> None:
        msg = frame.msg
        try:
            price = (
                scaled(msg["yes_price_dollars"], 10_000)
                if "yes_price_dollars" in msg
                else scaled(msg["yes_price"], 100)
            )
            count = scaled(msg["count_fp"] if "count_fp" in msg else msg["count"], 100)
            taker = SIDES.index(msg.get("taker_outcome_side") or msg["taker_side"])
        except (KeyError, ValueError, ArithmeticError) as problem:
            _log.warning('recorded_trade_not_understood ticker=%s problem="%r"', frame.ticker, problem)
            return
        trade = Trade(
            frame.us,
            str(msg.get("trade_id", "")),
            market.ticker,
            price,
            count,
            taker,
            bool(msg.get("is_block_trade", False)),
        )
        self._exchange.venue.record_trade(market, trade)
        self._exchange.publisher.note_trade(trade)
