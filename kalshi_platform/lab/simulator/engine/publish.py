"""The publish path: each message encoded once, noted in the ledger, spliced into every subscriber's envelope."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kalshi_platform.lab.simulator.engine import payloads
from kalshi_platform.lab.simulator.engine.book import NO, ONE_DOLLAR_E4, SIDES
from kalshi_platform.lab.simulator.engine.subscriptions import BOOK, COMBO_LIFECYCLE, LIFECYCLE, TICKER, TRADE, Router
from kalshi_platform.lab.simulator.engine.truth import TruthLedger
from kalshi_platform.lab.simulator.engine.universe import Market, Trade

SuppressLifecycle = Callable[[str, dict[str, Any]], bool]


class Publisher:
    """The venue's sink. `suppress` may keep a lifecycle message from all subscribers (an injected fault)."""

    def __init__(self, router: Router, truth: TruthLedger, suppress: SuppressLifecycle) -> None:
        self._books = router.by_ticker[BOOK]
        self._router = router
        self._truth = truth
        self._keep = truth.enabled
        self._suppress = suppress

    def delta(self, market: Market, us: int, side: int, price_e4: int, delta_e2: int) -> None:
        """Publish a delta."""
        ticker = market.ticker
        if self._keep:
            truth = self._truth
            truth.n += 1
            truth.deltas.append((truth.n, us, ticker, SIDES[side], price_e4, delta_e2))
        targets = self._books.get(ticker)
        if not targets:
            return
        body = payloads.delta(market, us, side, price_e4, delta_e2)
        for subscription in targets:
            if side == NO and subscription.use_yes_price:
                subscription.push(BOOK, payloads.delta(market, us, side, price_e4, delta_e2, use_yes_price=True))
            else:
                subscription.push(BOOK, body)

    def recorded(self, channel: str, kind: str, ticker: str, body: bytes) -> None:
        """Publish a recorded `msg` body unchanged to the subscribers of `channel`."""
        for subscription in self._router.targets(channel, ticker):
            subscription.push(kind, body)

    def recorded_delta(self, ticker: str, body: bytes, side: int, price_e4: int) -> None:
        """Publish a recorded delta; its price is rewritten only for those who read the no side on the yes scale."""
        for subscription in self._books.get(ticker, ()):
            if side == NO and subscription.use_yes_price:
                msg = {**json.loads(body), "price_dollars": payloads.DOLLARS[ONE_DOLLAR_E4 - price_e4]}
                subscription.push(BOOK, payloads.encode(msg))
            else:
                subscription.push(BOOK, body)

    def note_delta(self, us: int, ticker: str, side: str, price_e4: int, delta_e2: int) -> None:
        """Note a delta in the ledger only."""
        if self._keep:
            self._truth.n += 1
            self._truth.deltas.append((self._truth.n, us, ticker, side, price_e4, delta_e2))

    def note_trade(self, trade: Trade) -> None:
        """Note a trade in the ledger only."""
        if self._keep:
            truth = self._truth
            truth.n += 1
            truth.trades.append(
                (
                    truth.n, trade.us, trade.ticker, trade.trade_id, trade.yes_price_e4, trade.count_e2,
                    SIDES[trade.taker_side], trade.is_block_trade,
                )
            )  # fmt: skip

    def note_ticker(self, us: int, ticker: str, body: bytes, *, initial: bool) -> None:
        """Note a ticker in the ledger only."""
        if self._keep:
            self._truth.n += 1
            self._truth.tickers.append((self._truth.n, us, ticker, body.decode(), initial))

    def note_lifecycle(self, kind: str, ticker: str, us: int, msg: dict[str, Any], *, suppressed: bool) -> None:
        """Note a lifecycle message in the ledger only."""
        if self._keep:
            truth = self._truth
            truth.n += 1
            body = payloads.encode(msg).decode()
            truth.lifecycle.append((truth.n, us, ticker, kind, msg.get("event_type", kind), body, suppressed))

    def note_served(self, ticker: str, connection: str, user_agent: str) -> None:
        """Note in the ledger that a book was sent to one subscriber, between two published messages."""
        if self._keep:
            self._truth.served.append((self._truth.n, ticker, connection, user_agent))

    def trade(self, market: Market, trade: Trade) -> None:
        """Publish a trade."""
        self.note_trade(trade)
        body = payloads.trade(trade)
        for subscription in self._router.targets(TRADE, market.ticker):
            subscription.push(TRADE, body)

    def ticker(self, market: Market, us: int, body: bytes, *, initial: bool) -> None:
        """Publish a ticker; an initial one is noted, and its asker is sent it by the caller."""
        self.note_ticker(us, market.ticker, body, initial=initial)
        if not initial:
            for subscription in self._router.targets(TICKER, market.ticker):
                subscription.push(TICKER, body)

    def lifecycle(self, kind: str, ticker: str, us: int, msg: dict[str, Any]) -> None:
        """Publish a lifecycle message on the channel of its market's kind, to all of its subscribers."""
        is_combo = ticker.startswith("KXMVE")
        if is_combo and kind == LIFECYCLE:
            kind = COMBO_LIFECYCLE
        suppressed = self._suppress(kind, msg)
        self.note_lifecycle(kind, ticker, us, msg, suppressed=suppressed)
        if suppressed:
            return
        body = payloads.encode(msg)
        for subscription in self._router.targets(COMBO_LIFECYCLE if is_combo else LIFECYCLE, ticker):
            subscription.push(kind, body)
