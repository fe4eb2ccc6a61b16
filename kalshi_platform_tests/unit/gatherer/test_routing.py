"""Sessions that must end: nothing is received until none is open, then everything is."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kalshi_platform.gatherer.capture.exchange_clock import ExchangeClock
from kalshi_platform.gatherer.markets.registry import Registry
from kalshi_platform.gatherer.routing import Router
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.clock_offset import Offset
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.exchange import eventually


def test_every_session_ends_before_the_first_one_may_begin() -> None:
    settings = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=Path(), follow_books=False)
    router = Router(settings, Registry(settings.market_filter, 0.0), FakeClock())
    lines = [SimpleNamespace(is_open=True) for _ in range(3)]
    slots = [SimpleNamespace(connections=lambda line=line: iter([line])) for line in lines]
    steps: list[object] = []
    router.fleet = cast(Any, SimpleNamespace(slots=slots, set_markets=steps.append))
    stop = threading.Event()
    following = threading.Thread(target=router.follow, args=(stop,))
    following.start()
    try:

        def two_more_steps() -> None:
            wanted = len(steps) + 2

            def are_done() -> bool:
                router.changed.set()
                return len(steps) >= wanted

            eventually(are_done, what="two more steps")

        assert router.may_receive()
        router.reconnect()
        assert not router.may_receive()
        for line in lines:
            two_more_steps()
            assert not router.may_receive()
            line.is_open = False
        router.changed.set()
        eventually(router.may_receive)
    finally:
        stop.set()
        router.changed.set()
        following.join(10)
    assert not following.is_alive()


def test_sessions_begin_again_although_markets_cannot_be_followed() -> None:
    settings = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=Path(), follow_books=False)
    router = Router(settings, Registry(settings.market_filter, 0.0), FakeClock())

    def set_markets(_: object) -> None:
        raise RuntimeError("can't start new thread")

    router.fleet = cast(Any, SimpleNamespace(slots=[], set_markets=set_markets))
    router.reconnect()
    with pytest.raises(RuntimeError):
        router.follow(threading.Event())
    assert router.may_receive()


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
    assert passed_s() == 11.0, "nobody has asked the exchange since"
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
