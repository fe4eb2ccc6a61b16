"""Sessions that must end: nothing is received until none is open, then everything is."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kalshi_platform.gatherer.capture.exchange_clock import ExchangeClock
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.gatherer.routing import MarketFollower, Router, SessionRequests
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.exchange import eventually

SETTINGS = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=Path(), follow_books=False)


class Pool:
    """Stands for the pool: connections that are open or not, and the calls it gets."""

    def __init__(self, connections: int = 0) -> None:
        self.connections = [SimpleNamespace(is_open=True) for _ in range(connections)]
        self.slots = [SimpleNamespace(connections=lambda each=each: iter([each])) for each in self.connections]
        self.steps = 0
        self.resubscribed: list[str] = []
        self.resubscribed_missing: list[str] = []
        self.lost: list[tuple[int, Sequence[str]]] = []
        self.fails = False

    def set_markets(self, _: Mapping[str, int]) -> None:
        self.steps += 1
        if self.fails:
            raise RuntimeError("can't start new thread")

    def resubscribe(self, tickers: Sequence[str]) -> None:
        self.resubscribed += tickers

    def resubscribe_missing(self, tickers: Sequence[str]) -> None:
        self.resubscribed_missing += tickers

    def books_lost(self, session_id: int, tickers: Sequence[str]) -> None:
        self.lost.append((session_id, tickers))


def follower_of(pool: Pool, requests: SessionRequests) -> MarketFollower:
    registry = Registry(SETTINGS.market_filter, 0.0)
    return MarketFollower(SETTINGS, FakeClock(), registry, cast(Any, None), cast(Any, pool), requests)


def router_of(requests: SessionRequests) -> Router:
    writer = SimpleNamespace(is_stalled=False)
    others: Any = None
    return Router(SETTINGS, FakeClock(), cast(Any, writer), others, others, others, others, others, others, requests)


def test_every_session_ends_before_the_first_one_may_begin() -> None:
    requests, pool = SessionRequests("g1"), Pool(connections=3)
    router, stop = router_of(requests), threading.Event()
    following = threading.Thread(target=follower_of(pool, requests).run, args=(stop,))
    following.start()
    try:

        def two_more_steps() -> None:
            enough = pool.steps + 2

            def are_done() -> bool:
                requests.changed.set()
                return pool.steps >= enough

            eventually(are_done, what="two more steps")

        assert router.may_receive()
        requests.restart_sessions()
        assert not router.may_receive()
        for connection in pool.connections:
            two_more_steps()
            assert not router.may_receive()
            connection.is_open = False
        requests.changed.set()
        eventually(router.may_receive)
    finally:
        stop.set()
        requests.changed.set()
        following.join(10)
    assert not following.is_alive()


def test_sessions_begin_again_and_requests_are_done_although_markets_cannot_be_followed() -> None:
    requests, pool = SessionRequests("g1"), Pool()
    pool.fails = True
    requests.restart_sessions()
    requests.resubscribe(["A"])
    requests.resubscribe(["A"])
    requests.resubscribe_missing(["B"])
    requests.books_lost(7, ["C"])
    with pytest.raises(RuntimeError):
        follower_of(pool, requests).run(threading.Event())
    assert router_of(requests).may_receive()
    assert (pool.resubscribed, pool.resubscribed_missing) == (["A"], ["B"])
    assert pool.lost == [(7, ["C"])]
    assert (requests.pop(), requests.pop_lost_books()) == (([], []), [])


@pytest.mark.parametrize("set_by_s", [90.0, -90.0])
def test_markets_open_and_close_by_the_clock_of_the_exchange(set_by_s: float) -> None:
    clock = FakeClock()
    begin_us, offset = clock.now_ns() // 1_000, Offset(-0.1, 0.1)
    exchange = ExchangeClock(clock, lambda: offset)

    def passed_s() -> float:
        return round((exchange.now_us() - begin_us) / 1e6, 3)

    clock.step(10.0)
    assert passed_s() == 10.0
    clock.set_wall(set_by_s)
    clock.step(1.0)
    assert passed_s() == 11.0, "the exchange was not read since"
    offset = Offset(set_by_s - 0.4, set_by_s + 0.4)
    assert passed_s() == 11.0
    clock.set_wall(-set_by_s)
    clock.step(1.0)
    assert passed_s() == 12.0
    offset = Offset(-0.3, 0.1)
    assert passed_s() == 12.0
    # A machine that was wrong from the beginning is right with the first answer.
    clock.set_wall(set_by_s)
    late = ExchangeClock(clock, lambda: Offset(set_by_s, set_by_s + 0.2))
    assert abs((late.now_us() - begin_us) / 1e6 - 12.0) < 0.2
