"""All connections of a gatherer: what grows, moves, is replaced and is left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from kalshi_platform.gatherer.connections import Connection, ConnectionCounters
from kalshi_platform.gatherer.fleet import Fleet
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform_tests.fixtures.clocks import FakeClock


class Line:
    """A connection that follows at once what is wanted of it, as far as `takes` says."""

    is_open = True
    has_channels = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.counters = ConnectionCounters()
        self.markets: dict[str, int] = {}
        self.takes = 10**9
        self.silent = False
        self.retired: str | None = None

    def want_books(self, markets: Mapping[str, int]) -> None:
        self.markets = dict(markets)

    def start(self) -> None:
        pass

    def followed(self) -> frozenset[str]:
        return frozenset(list(self.markets)[: self.takes])

    def mute(self) -> frozenset[str]:
        return frozenset(self.markets) - self.followed() if self.silent else frozenset()

    def suspects(self) -> frozenset[str]:
        return frozenset()

    def watch_feed(self) -> None:
        pass

    def begun(self) -> frozenset[str]:
        return frozenset()

    def feed_times(self) -> Mapping[int, tuple[int, int]]:
        return {}

    def is_running(self) -> bool:
        return self.retired is None

    def retire(self, reason: str) -> None:
        self.retired = reason


class World:
    """A fleet of such connections and its clock."""

    def __init__(self, **changes: Any) -> None:
        self.clock = FakeClock()
        self.lines: list[Line] = []
        self.next_takes = 10**9
        values = {"rotate_connections_s": 0.0, **changes}
        settings = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=Path(), **values)
        self.fleet = Fleet(settings, self.clock, self._make)
        self.fleet.start_books()

    def _make(self, name: str) -> Connection:
        line = Line(name)
        line.takes, line.silent = self.next_takes, self.next_takes == 0
        self.lines.append(line)
        return cast(Connection, line)

    def go(self, seconds: int, wanted: Mapping[str, int]) -> None:
        for _ in range(seconds):
            self.clock.step(1.0)
            self.fleet.follow(wanted)

    def loads(self) -> list[int]:
        return [len(cast(Line, slot.present).markets) for slot in self.fleet.slots[1:]]


def markets(count: int) -> dict[str, int]:
    return {f"M{number:05}": 0 for number in range(count)}


def test_a_rotation_whose_new_connection_is_mute_is_given_up_and_the_old_one_goes_on() -> None:
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
