"""pykalshi's WebSocket client: subscribes, receives typed messages, and holds the exchange's books for a minute."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pykalshi
import pytest
from conftest import Simulator, eventually
from pykalshi import orderbook

Note = Callable[[str], None]
FOLLOWED_S = float(os.environ.get("CONFORMANCE_SECONDS", "60"))


class Follower:
    """A feed whose books, messages and mistakes are kept."""

    def __init__(self, client: pykalshi.KalshiClient, simulator: Simulator) -> None:
        self.feed = client.feed()
        self.feed._ws_url = simulator.ws_url  # it has no setting for the address
        self.books: dict[str, orderbook.OrderbookManager] = {}
        self.seen: Counter[str] = Counter()
        self.untyped: list[Any] = []
        self.impossible: list[Any] = []
        self.lifecycle: Counter[str] = Counter()
        for channel in ("orderbook_delta", "ticker", "trade", "market_lifecycle_v2", "error"):
            self.feed.on(channel, lambda message, channel=channel: self.take(channel, message))

    def take(self, channel: str, message: Any) -> None:
        """Handle one message as the client's documentation shows it."""
        self.seen[type(message).__name__] += 1
        if isinstance(message, dict) or channel == "error":
            self.untyped.append(message)
        elif channel == "market_lifecycle_v2":
            self.lifecycle[message.event_type] += 1
        elif channel == "orderbook_delta":
            book = self.books.setdefault(message.market_ticker, orderbook.OrderbookManager(message.market_ticker))
            if hasattr(message, "yes_dollars"):
                book.apply_snapshot(message.yes_dollars, message.no_dollars)
                return
            ladder = book.yes if message.side == "yes" else book.no
            had = float(ladder.get(message.price_dollars, "0"))
            if had + float(message.delta_fp) < -1e-6:
                self.impossible.append(message)
            book.apply_delta(message.side, message.price_dollars, message.delta_fp)

    def book(self, ticker: str) -> dict[str, dict[str, str]]:
        """Return the client's book in the shape of `Simulator.book`."""
        return {"yes": self.books[ticker].yes, "no": self.books[ticker].no}


@pytest.fixture(scope="module")
def client(simulator: Simulator) -> Iterator[pykalshi.KalshiClient]:
    with pykalshi.KalshiClient(
        api_key_id=simulator.key_id, private_key_path=simulator.key_file, api_base=simulator.rest_url
    ) as made:
        yield made


def agree(simulator: Simulator, follower: Follower, tickers: list[str]) -> int:
    """Compare the client's books with the exchange's in a quiet moment; returns how many levels were compared."""
    simulator.control("/rate", rate=0)
    try:
        different: dict[str, Any] = {}

        def same() -> bool:
            different.clear()
            for ticker in tickers:
                truth = simulator.book(ticker)
                if ticker not in follower.books or follower.book(ticker) != truth:
                    different[ticker] = truth
            return not different

        try:
            eventually(same, within_s=10, what="equal books")
        except AssertionError:
            pytest.fail(f"{len(different)} of {len(tickers)} books differ: {list(different)[:3]}")
        for ticker in tickers[:10]:
            assert follower.book(ticker) == simulator.rest_book(ticker)
        return sum(len(side) for ticker in tickers for side in follower.book(ticker).values())
    finally:
        simulator.control("/rate", rate=300)


def test_rest_of_the_same_client(client: pykalshi.KalshiClient, simulator: Simulator) -> None:
    ticker = simulator.open_tickers()[0]
    market = client.get_market(ticker)
    assert market.ticker == ticker
    assert market.get_orderbook() is not None
    assert len(client.get_markets(limit=25, fetch_all=True)) > 60
    assert client.get_event(market.event_ticker).event_ticker == market.event_ticker
    assert client.exchange.is_trading()


def test_books_are_right_for_a_minute_and_after_a_cut(
    client: pykalshi.KalshiClient, simulator: Simulator, note: Note
) -> None:
    tickers = simulator.open_tickers()
    # Markets that the exchange opens and closes by itself are not asked for: these are the lasting ones.
    first, second = tickers[:30], tickers[30:60]
    follower = Follower(client, simulator)
    feed = follower.feed
    feed.subscribe("orderbook_delta", market_tickers=first)
    feed.subscribe("ticker")
    feed.subscribe("trade")
    feed.subscribe("market_lifecycle_v2")
    feed.start()
    try:
        assert feed.is_connected
        eventually(lambda: len(follower.books) == len(first), within_s=10, what="the first snapshots")
        feed.subscribe("orderbook_delta", market_tickers=second)  # merges into the subscription that is open
        eventually(lambda: len(follower.books) == len(tickers[:60]), within_s=10, what="the second snapshots")
        born = simulator.control("/markets", action="create", close_in_s=3_600)["ticker"]
        simulator.control("/markets", action="close", ticker=born)
        simulator.control("/markets", action="determine", ticker=born, result="yes")
        started, checks, levels = time.monotonic(), 0, 0
        while time.monotonic() - started < FOLLOWED_S:
            time.sleep(min(15.0, FOLLOWED_S / 2))
            levels += agree(simulator, follower, tickers[:60])
            checks += 1
        lasted = time.monotonic() - started
        assert feed.reconnect_count == 0
        counted = feed.messages_received
        simulator.control("/faults", kind="cut")
        eventually(lambda: feed.reconnect_count == 1, within_s=20, what="the reconnection")
        agree(simulator, follower, tickers[:60])
    finally:
        feed.stop()
    assert follower.untyped == []
    assert follower.impossible == []
    names = ("OrderbookSnapshotMessage", "OrderbookDeltaMessage", "TickerMessage", "TradeMessage")
    assert all(follower.seen[name] > 0 for name in names), follower.seen
    assert {"created", "close_date_updated", "determined"} <= set(follower.lifecycle)
    note(
        f"pykalshi stream: {lasted:.0f} s, {counted} messages "
        f"({', '.join(f'{name} {follower.seen[name]}' for name in names)}; lifecycle {dict(follower.lifecycle)}); "
        f"{len(follower.books)} books equal to the exchange's at {checks} quiet moments ({levels} levels), "
        "and again after a cut and a reconnection"
    )
