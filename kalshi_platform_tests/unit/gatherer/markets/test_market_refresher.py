"""A market that is deleted while the catalog is away keeps what was announced of its end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from kalshi_platform.errors import DatabaseUnavailable, MarketNotYetVisible
from kalshi_platform.gatherer.markets.market_refresher import MarketRefresher
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.gatherer.settings import MarketFilter
from kalshi_platform.market.catalog import EventInfo, MarketInfo
from kalshi_platform.market.records import LifecycleEvent
from kalshi_platform_tests.fixtures.clocks import FakeClock

TICKER = "KXRAIN-26NOV22-T1"
CREATED = {
    "event_type": "created", "market_ticker": TICKER, "open_ts": 1_795_400_000, "close_ts": 1_795_410_000,
    "additional_metadata": {"event_ticker": "KXRAIN-26NOV22", "title": "Rain?"},
}  # fmt: skip
DETERMINED = {"event_type": "determined", "market_ticker": TICKER, "result": "no", "settlement_value": "0.0000"}


class GoneFromRest:
    """404 for every market."""

    def market(self, ticker: str) -> MarketInfo:
        raise MarketNotYetVisible(ticker)

    def event(self, event_ticker: str) -> EventInfo:
        raise AssertionError(event_ticker)

    def iter_markets(self, *_args: object, **_options: object) -> Iterator[MarketInfo]:
        return iter(())


class UnavailableAtFirst:
    """A catalog that refuses the first `refusals` calls, and remembers what it is stored after them."""

    def __init__(self, refusals: int, stop: threading.Event) -> None:
        self.stored: list[MarketInfo] = []
        self.vanished: list[str] = []
        self.refusals = refusals
        self._stop = stop

    def market(self, ticker: str) -> MarketInfo | None:
        if self.refusals:
            self.refusals -= 1
            raise DatabaseUnavailable("the catalog is away")
        return None

    def upsert_markets(self, infos: Iterable[MarketInfo], known_at: datetime) -> object:
        self.stored += infos
        return None

    def upsert_events(self, infos: Iterable[EventInfo], known_at: datetime) -> object:
        raise AssertionError(infos)

    def mark_vanished(self, tickers: Sequence[str], at: datetime) -> object:
        self.vanished += tickers
        self._stop.set()
        return None


class ImpatientClock(FakeClock):
    """Each look at the monotonic time lets some of it pass: nothing waits for real."""

    def monotonic(self) -> float:
        self.step(0.4)
        return super().monotonic()


def announcement(message: Mapping[str, object]) -> LifecycleEvent:
    content = msgspec.json.encode(message).decode()
    return LifecycleEvent(TICKER, str(message["event_type"]), None, content, 1, 1, 1, 1)


def test_an_end_announced_while_the_catalog_is_away_is_kept_until_it_is_back() -> None:
    stop = threading.Event()
    store = UnavailableAtFirst(3, stop)
    registry = Registry(MarketFilter(), 60.0)
    fetcher = MarketRefresher(GoneFromRest(), store, registry, ImpatientClock(), 10, lambda: None)
    fetcher.on_lifecycle_event(announcement(CREATED))
    fetcher.on_lifecycle_event(announcement(DETERMINED))
    thread = threading.Thread(target=fetcher.run, args=(stop,), daemon=True)
    thread.start()
    ended = stop.wait(20)
    stop.set()
    thread.join(10)
    assert ended
    assert [(each.ticker, each.status, each.result, each.settlement_value_e6) for each in store.stored] == [
        (TICKER, "determined", "no", 0)
    ]
    assert store.vanished == [TICKER]
    assert store.refusals == 0
