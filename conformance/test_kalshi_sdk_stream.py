"""The community client kalshi-sdk, a third one beside Kalshi's and pykalshi: its REST models, and two-sided books.

Its snapshot model demands both sides, while the exchange leaves out the key of an empty side. It therefore never gets
hold of a one-sided book: what it then does is noted, and is no failure of the exchange.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from conftest import Simulator
from kalshi.auth import KalshiAuth
from kalshi.client import KalshiClient
from kalshi.config import KalshiConfig
from kalshi.ws.client import KalshiWebSocket
from pydantic import ValidationError

Note = Callable[[str], None]
FOLLOWED_S = 10.0


@pytest.fixture(scope="module")
def config(simulator: Simulator) -> KalshiConfig:
    return KalshiConfig(base_url=simulator.rest_url, ws_base_url=simulator.ws_url)


@pytest.fixture(scope="module")
def auth(simulator: Simulator) -> KalshiAuth:
    return KalshiAuth.from_key_path(simulator.key_id, simulator.key_file)


def test_rest(config: KalshiConfig, auth: KalshiAuth, simulator: Simulator, note: Note) -> None:
    with KalshiClient(auth=auth, config=config) as client:
        ticker = simulator.open_tickers()[0]
        assert client.markets.orderbook(ticker) is not None
        assert client.exchange.status().exchange_active
        market: Any = None
        missing: list[Any] = []
        try:
            market = client.markets.get(ticker)
        except ValidationError as refusal:
            missing = [error["loc"] for error in refusal.errors()]
    if market is None:
        # Gone from the exchange since October 2026, and from its official client's models.
        assert missing == [("liquidity_dollars",)]
        note("kalshi-sdk REST: status and book parse; its market model still wants `liquidity_dollars`, long gone")
    else:
        assert market.ticker == ticker
        note("kalshi-sdk REST: status, book and market parse")


def sides(simulator: Simulator, tickers: list[str]) -> dict[str, int]:
    """Return how many sides of each book hold orders now."""
    return {ticker: sum(bool(side) for side in simulator.book(ticker).values()) for ticker in tickers}


async def count(stream: AsyncIterator[Any], seen: Counter[str]) -> None:
    async for message in stream:
        seen[type(message).__name__] += 1


async def follow(ws: KalshiWebSocket, simulator: Simulator, tickers: list[str]) -> tuple[Counter[str], list[str]]:
    """Follow all channels for a while; return what came, and which books differ from the exchange's at the end."""
    seen: Counter[str] = Counter()
    async with ws.connect() as session:
        # Books last: while this client waits for an acknowledgement it throws the frames of other channels away.
        streams = [
            await session.subscribe_ticker(),
            await session.subscribe_trade(),
            await session.subscribe_market_lifecycle(),
            await session.subscribe_orderbook_delta(tickers=tickers, maxsize=100_000),
        ]
        readers = [asyncio.create_task(count(stream, seen)) for stream in streams]
        await asyncio.sleep(FOLLOWED_S)
        await asyncio.to_thread(simulator.control, "/rate", rate=0)
        await asyncio.sleep(1.0)
        different = [ticker for ticker in tickers if not equal(session, ticker, simulator.book(ticker))]
        await asyncio.to_thread(simulator.control, "/rate", rate=300)
        for reader in readers:
            reader.cancel()
    return seen, different


def equal(session: KalshiWebSocket, ticker: str, truth: dict[str, dict[str, str]]) -> bool:
    """Whether the client's book is the exchange's."""
    manager = session._orderbook_mgr
    own = manager.get(ticker) if manager is not None else None
    if own is None:
        return not any(truth.values())
    found = {
        side: {f"{level.price:.4f}": f"{level.quantity:.2f}" for level in getattr(own, side)} for side in ("yes", "no")
    }
    return found == truth


def test_two_sided_books_are_right(
    config: KalshiConfig, auth: KalshiAuth, simulator: Simulator, note: Note, caplog: pytest.LogCaptureFixture
) -> None:
    tickers = [ticker for ticker, held in sides(simulator, simulator.open_tickers()[:60]).items() if held == 2][:25]
    with caplog.at_level(logging.WARNING, logger="kalshi.ws"):
        seen, different = asyncio.run(follow(KalshiWebSocket(auth=auth, config=config), simulator, tickers))
    assert different == []
    # It does not know of `event_lifecycle`, which comes on the lifecycle channel; nothing else may disturb it.
    assert [message for message in caplog.messages if "event_lifecycle" not in message] == []
    assert all(seen[name] for name in ("OrderbookDeltaMessage", "TickerMessage", "TradeMessage"))
    note(f"kalshi-sdk stream: {FOLLOWED_S:.0f} s, {dict(seen)}, {len(tickers)} two-sided books equal, nothing refused")


def test_one_sided_books_are_refused_by_this_client_and_that_is_its_own_doing(
    config: KalshiConfig, auth: KalshiAuth, simulator: Simulator, note: Note, caplog: pytest.LogCaptureFixture
) -> None:
    tickers = [ticker for ticker, held in sides(simulator, simulator.open_tickers()[:60]).items() if held < 2][:5]
    assert tickers, "the venue has books with an empty side"
    with caplog.at_level(logging.WARNING, logger="kalshi.ws"):
        seen, different = asyncio.run(follow(KalshiWebSocket(auth=auth, config=config), simulator, tickers))
    complaints = Counter(" ".join(record.getMessage().split()[:3]) for record in caplog.records)
    note(
        f"kalshi-sdk stream, {len(tickers)} one-sided or empty books: {len(different)} differ, as known of this client "
        f"(it wants both sides in a snapshot); it said {dict(complaints)}"
    )
    assert seen["TickerMessage"]
