"""Sessions that must end: nothing is received until none is open, then everything is."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kalshi_platform.gatherer.registry import Registry
from kalshi_platform.gatherer.routing import Router
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.exchange import eventually


def test_every_session_ends_before_the_first_one_may_begin() -> None:
    settings = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=Path(), follow_books=False)
    router = Router(settings, Registry(settings.market_filter, 0.0), FakeClock())
    lines = [SimpleNamespace(is_open=True) for _ in range(3)]
    slots = [SimpleNamespace(connections=lambda line=line: iter([line])) for line in lines]
    steps: list[object] = []
    router.fleet = cast(Any, SimpleNamespace(slots=slots, follow=steps.append))
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

    def follow(_: object) -> None:
        raise RuntimeError("can't start new thread")

    router.fleet = cast(Any, SimpleNamespace(slots=[], follow=follow))
    router.reconnect()
    with pytest.raises(RuntimeError):
        router.follow(threading.Event())
    assert router.may_receive()
