"""Serve a recorded capture through the same protocol.

A capture is JSON lines `{"received_at_ns": int, "frame": {…}}`. Each market's book starts as the capture's first
snapshot of it; deltas recorded before that snapshot are inside it and are not played again. Every client subscription
gets the current book and then the recorded messages (`msg` unchanged, recorded exchange times), with sids and sequence
numbers of its own connection. Recorded acks and errors are not replayed; the server makes its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lab.simulator.engine import listing, universe
from kalshi_platform.lab.simulator.engine.book import NO, SIDES, YES, Book, BookViolation
from kalshi_platform.lab.simulator.engine.candles import note_message, quote_of
from kalshi_platform.lab.simulator.engine.core import Exchange
from kalshi_platform.lab.simulator.engine.payloads import encode
from kalshi_platform.lab.simulator.engine.subscriptions import BOOK, COMBO_LIFECYCLE, LIFECYCLE, TICKER, TRADE
from kalshi_platform.lab.simulator.engine.universe import Event, Market, Trade
from kalshi_platform.lab.simulator.settings import ReplaySettings

_log = logging.getLogger(__name__)

Json = dict[str, Any]
ANSWERS = frozenset({"subscribed", "unsubscribed", "ok", "error"})
CHANNELS = {
    "orderbook_delta": BOOK,
    "orderbook_snapshot": BOOK,
    "trade": TRADE,
    "ticker": TICKER,
    "market_lifecycle_v2": LIFECYCLE,
    "market_lifecycle": LIFECYCLE,
    "event_lifecycle": LIFECYCLE,
    "event_fee_update": LIFECYCLE,
    "multivariate_market_lifecycle": COMBO_LIFECYCLE,
}
MARKET_KINDS = frozenset({"orderbook_snapshot", "orderbook_delta", "trade", "ticker"})
YEARS_US = 10 * 365 * 86_400_000_000
OTHER_CHANNELS_GRACE_S = 2.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One frame of the capture, made ready: `body` is its `msg`, `channel` where it goes, `us` its exchange time.

    `change` is (side, price_e4, delta_e2) of a delta; `msg` is kept for the other kinds only.
    """

    received_at_ns: int
    kind: str
    channel: str
    ticker: str
    us: int
    body: bytes
    change: tuple[int, int, int] | None
    msg: Json


def read_capture(path: Path) -> list[Recorded]:
    """Read a capture without its acks and errors; raises `ConfigurationError` naming the first line that is none."""
    if not path.is_file():
        raise ConfigurationError([f"capture {path} does not exist"])
    found = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                frame, received_at_ns = record["frame"], int(record["received_at_ns"])
                kind = str(frame.get("type", ""))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ConfigurationError([f'{path}:{number} is no {{"received_at_ns", "frame"}} object']) from None
            if kind in ANSWERS:
                continue
            found.append(_recorded(kind, frame.get("msg"), received_at_ns))
    if not found:
        raise ConfigurationError([f"capture {path} holds no data frames"])
    return found


def _recorded(kind: str, content: object, received_at_ns: int) -> Recorded:
    msg: Json = content if isinstance(content, dict) else {}
    ticker = sys.intern(str(msg.get("market_ticker") or msg.get("event_ticker") or ""))
    change = None
    if kind == "orderbook_delta":
        try:
            change = recorded_delta(msg)
        except (KeyError, ValueError, ArithmeticError) as problem:
            # The recording is served as it is; what an odd delta does to a client is the client's to find.
            _log.warning('recorded_delta_not_understood ticker=%s problem="%r"', ticker, problem)
    us = recorded_time_us(msg, received_at_ns)
    # A type from the future is passed on to whoever reads books.
    channel = CHANNELS.get(kind, BOOK)
    return Recorded(received_at_ns, kind, channel, ticker, us, encode(content), change, {} if change else msg)


def recorded_levels(msg: Json, side: int) -> dict[int, int]:
    """Return one side of a recorded snapshot as {price_e4: size_e2}, in any of the three shapes that were ever sent."""
    name = SIDES[side]
    for key, price_scale in ((f"{name}_dollars_fp", 10_000), (f"{name}_dollars", 10_000), (name, 100)):
        if msg.get(key):
            return {_scaled(price, price_scale): _scaled(size, 100) for price, size in msg[key]}
    return {}


def recorded_delta(msg: Json) -> tuple[int, int, int]:
    """Return (side, price_e4, delta_e2) of a recorded delta, current or legacy shape."""
    price = _scaled(msg["price_dollars"], 10_000) if "price_dollars" in msg else _scaled(msg["price"], 100)
    change = _scaled(msg["delta_fp"] if "delta_fp" in msg else msg["delta"], 100)
    return SIDES.index(msg["side"]), price, change


def recorded_time_us(msg: Json, received_at_ns: int) -> int:
    """Return the recorded exchange time in µs; the receive time where the message has none."""
    for key in ("time", "ts", "ts_ms"):
        value = msg.get(key)
        if isinstance(value, str) and value:
            try:
                return (datetime.fromisoformat(value) - EPOCH) // timedelta(microseconds=1)
            except (ValueError, TypeError):
                continue
        if isinstance(value, int) and (key == "ts_ms" or "ts_ms" not in msg):
            return value * (1_000 if value > 10**11 else 1_000_000)
    return received_at_ns // 1_000


def _scaled(value: object, scale: int) -> int:
    return int(Decimal(str(value)) * scale)


class Playback:
    """Fills an empty exchange from a capture and plays it."""

    def __init__(self, exchange: Exchange, settings: ReplaySettings) -> None:
        self._exchange = exchange
        self._settings = settings
        self._frames = read_capture(settings.capture)
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
                "frames": len(self._frames), "played": self.played, "skipped": self.skipped,
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
        began, first_ns = clock.monotonic(), self._frames[0].received_at_ns
        for number, frame in enumerate(self._frames):
            if speed > 0:
                due = began + (frame.received_at_ns - first_ns) / 1e9 / speed
                ahead = due - clock.monotonic()
                if ahead > 0.001:
                    await flush()
                    await asyncio.sleep(ahead)
            elif number % 500 == 499:
                await flush()
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
        others = {frame.channel for frame in self._frames} - {BOOK}
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
        first_us = min(frame.received_at_ns for frame in self._frames) // 1_000
        ids: dict[str, str] = {}
        for frame in self._frames:
            if frame.kind in MARKET_KINDS and frame.ticker and frame.ticker not in ids:
                market_id = json.loads(frame.body).get("market_id")
                ids[frame.ticker] = str(market_id or uuid.uuid5(uuid.NAMESPACE_OID, frame.ticker))
        for ticker, market_id in ids.items():
            self._list_market(ticker, market_id, first_us)
        for frame in self._frames:
            if frame.kind == "orderbook_snapshot" and frame.ticker not in self._pending_snapshot:
                self._pending_snapshot.add(frame.ticker)
                self._set_book(self._exchange.venue.markets[frame.ticker].book, frame.msg)
        self._exchange.write_books("first")

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
                _scaled(msg["yes_price_dollars"], 10_000)
                if "yes_price_dollars" in msg
                else _scaled(msg["yes_price"], 100)
            )
            count = _scaled(msg["count_fp"] if "count_fp" in msg else msg["count"], 100)
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
