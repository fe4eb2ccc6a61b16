"""All connections of a gatherer: what grows, moves, is replaced and is left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from kalshi_platform.exchange.protocol.session import Alarm
from kalshi_platform.gatherer.capture.connection_pool import ConnectionPool, OnAlarm
from kalshi_platform.gatherer.capture.connections import Connection, ConnectionCounters
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform_tests.fixtures.clocks import FakeClock


class ConnectionView:
    """A connection that follows at once what is wanted of it, as far as `takes` says."""

    is_open = True
    has_channels = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.counters = ConnectionCounters()
        self.markets: dict[str, int] = {}
        self.takes = 10**9
        self.silent = False
        self.fails_to_start = False
        self.retired: str | None = None

    def set_markets(self, markets: Mapping[str, int]) -> None:
        self.markets = dict(markets)

    def start(self) -> None:
        if self.fails_to_start:
            raise RuntimeError("can't start new thread")

    def followed(self) -> frozenset[str]:
        return frozenset(list(self.markets)[: self.takes])

    def unresponsive(self) -> frozenset[str]:
        return frozenset(self.markets) - self.followed() if self.silent else frozenset()

    def out_of_sync(self) -> frozenset[str]:
        return frozenset()

    def start_overlap_tracking(self) -> None:
        pass

    def resubscribed(self) -> frozenset[str]:
        return frozenset()

    def feed_times(self) -> Mapping[int, tuple[int, int]]:
        return {}

    def is_running(self) -> bool:
        return self.retired is None

    def close_after_handover(self, reason: str) -> None:
        self.retired = reason


class World:
    """A fleet of such connections and its clock."""

    def __init__(self, **changes: Any) -> None:
        self.clock = FakeClock()
        self.lines: list[ConnectionView] = []
        self.next_takes = 10**9
        self.can_start = True
        values = {"rotate_connections_s": 0.0, **changes}
        settings = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=Path(), **values)
        self.fleet = ConnectionPool(settings, self.clock, self._make, lambda *_: None)
        self.fleet.start_books()

    def _make(self, name: str, on_alarm: OnAlarm) -> Connection:
        self.on_alarm = on_alarm
        line = ConnectionView(name)
        line.takes, line.silent = self.next_takes, self.next_takes == 0
        line.fails_to_start = not self.can_start
        self.lines.append(line)
        return cast(Connection, line)

    def go(self, seconds: int, wanted: Mapping[str, int]) -> None:
        for _ in range(seconds):
            self.clock.step(1.0)
            self.fleet.set_markets(wanted)

    def loads(self) -> list[int]:
        return [len(cast(ConnectionView, slot.present).markets) for slot in self.fleet.slots[1:]]


def markets(count: int) -> dict[str, int]:
    return {f"M{number:05}": 0 for number in range(count)}


def test_a_rotation_whose_new_connection_is_unresponsive_is_given_up_and_the_old_one_goes_on() -> None:
    world = World(rotate_connections_s=1_000.0)
    wanted = markets(50)
    world.go(1, wanted)
    world.next_takes = 0
    world.go(1_200, wanted)
    assert world.fleet.followed() == 50
    assert world.fleet.counters.rotations_given_up >= 1
    books = [line for line in world.lines if line.name == "books-0"]
    assert (books[0].retired, books[1].retired) == (None, "replacement given up")
    world.next_takes = 10**9
    world.go(2_400, wanted)
    assert world.fleet.counters.rotations >= 2
    assert world.fleet.followed() == 50


def test_a_connection_that_cannot_be_started_is_tried_again_and_the_others_get_their_markets() -> None:
    world = World(markets_per_connection=10)
    wanted = markets(10)
    world.go(1, wanted)
    world.can_start = False
    more = {**markets(25), "NEW": 0}
    del more["M00000"]
    for _ in range(3):
        with pytest.raises(RuntimeError):
            world.go(1, more)
    assert world.loads() == [9]
    assert "M00000" not in world.lines[1].markets
    world.can_start = True
    world.go(1, more)
    assert sum(world.loads()) == world.fleet.followed() == 25
    assert len(world.loads()) == 3


def test_a_successor_that_cannot_be_started_is_none() -> None:
    world = World(rotate_connections_s=1_000.0)
    world.go(1, markets(5))
    world.can_start = False
    with pytest.raises(RuntimeError):
        world.go(1_001, markets(5))
    assert all(slot.successor is None for slot in world.fleet.slots)


def test_refused_markets_reach_another_connection_that_could_not_be_started_at_first() -> None:
    world = World()
    wanted = markets(10)
    world.go(1, wanted)
    refused = tuple(sorted(wanted)[6:])
    world.on_alarm(world.fleet.slots[1].present, Alarm("market_limit", "error 26", refused))
    world.can_start = False
    with pytest.raises(RuntimeError):
        world.go(1, wanted)
    world.can_start = True
    world.go(1, wanted)
    assert world.loads() == [6, 4]


def test_markets_are_moved_on_an_exchange_that_is_never_calm() -> None:
    world = World(markets_per_connection=100, rebalance_after_s=30.0)
    world.go(1, markets(100))
    for number in range(40):
        world.go(20, markets(130 + number % 2))
        if number == 1:
            assert world.fleet.counters.moved_markets == 0
    loads = world.loads()
    assert world.fleet.counters.moved_markets > 0
    assert max(loads) - min(loads) <= 21
    assert world.fleet.followed() == 131


def test_a_move_that_was_given_up_waits_and_lets_rotations_go_first() -> None:
    world = World(markets_per_connection=100, rotate_connections_s=1_000.0, handover_patience_s=20.0)
    wanted = markets(100)
    world.go(1, wanted)
    wanted = markets(130)
    world.go(1, wanted)
    moving_to = world.lines[-1]
    assert moving_to.name == "books-1"
    moving_to.takes = 30
    world.go(60, wanted)
    assert len(moving_to.markets) == 30, "given up"
    counters = world.fleet.counters
    for _ in range(200):
        world.go(1, wanted)
        assert len(moving_to.markets) == 30, "not tried again soon"
    world.go(800, wanted)
    assert counters.rotations == 3
    assert world.fleet.followed() == 130
    # The fresh connection takes them.
    assert counters.moved_markets > 0
