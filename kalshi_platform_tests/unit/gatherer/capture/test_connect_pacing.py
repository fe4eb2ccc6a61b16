"""Handshakes one after another; rotations at times of their own."""

from __future__ import annotations

import random
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.errors import ConnectionLost
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.capture.connect_pacing import ConnectThrottle, RotationSchedule
from kalshi_platform.gatherer.capture.connections import Connection
from kalshi_platform.gatherer.ids import IdSource
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.keys import private_key_pem


def test_the_first_does_not_wait_and_the_others_come_one_by_one() -> None:
    turns = ConnectThrottle(0.2, random.Random(1).random)
    delays = [turns.delay(100.0) for _ in range(20)]
    assert delays[0] == 0.0
    steps = [later - earlier for earlier, later in pairwise(delays)]
    assert all(0.1 <= step <= 0.3 for step in steps)
    assert len({round(step, 6) for step in steps}) > 10
    assert turns.delay(200.0) == 0.0


def test_connections_that_begin_at_one_moment_shake_hands_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = GathererSettings(name="g1", timeseries_url="", catalog_url="", state_dir=tmp_path)
    turns = ConnectThrottle(settings.reconnect_spacing_s, random.Random(3).random)
    exchange = ExchangeSettings(key_id="3c1f0a52-7d0e-4a33-9a9e-0f4a1b2c3d4e", private_key_pem=private_key_pem())
    handshakes: list[float] = []
    for number in range(12):
        # Each has a clock of its own that shows 0, the moment at which all of them were cut.
        clock, stop = FakeClock(), threading.Event()

        def refuse(clock: FakeClock = clock, stop: threading.Event = stop) -> None:
            handshakes.append(clock.monotonic())
            stop.set()
            raise ConnectionLost("still away")

        connection = Connection(
            f"books-{number}", settings, exchange, clock, IdSource("g1", clock), stop,
            lambda *_: None, lambda *_: None, ("trade",), turns,
        )  # fmt: skip
        monkeypatch.setattr(connection._socket, "open", refuse)
        connection.start()
        connection.join(5.0)
        assert not connection.is_running()
    gaps = [later - earlier for earlier, later in pairwise(handshakes)]
    assert min(gaps) >= 0.5 * settings.reconnect_spacing_s - 1e-5
    assert len({round(gap, 4) for gap in gaps}) > 5
    assert handshakes[-1] <= 12 * 1.5 * settings.reconnect_spacing_s


def due_at(clock: RotationSchedule, upto: int) -> list[int]:
    found = []
    for now in range(upto):
        if clock.is_due(now):
            found.append(now)
            clock.done(now)
    return found


def test_rotations_are_about_an_interval_apart_and_differ_by_gatherer_and_connection() -> None:
    values: dict[str, Any] = {}
    for name in ("g1 feed", "g1 books-0", "g2 feed", "g3 feed"):
        values[name] = due_at(RotationSchedule(1_000, name, 0.0, random.Random(1).random), 10_000)
        assert 500 <= values[name][0] <= 1_001
        assert all(900 <= later - earlier <= 1_101 for earlier, later in pairwise(values[name]))
    firsts = sorted(times[0] for times in values.values())
    assert min(later - earlier for earlier, later in pairwise(firsts)) > 5


def test_an_interval_of_zero_never_rotates() -> None:
    assert due_at(RotationSchedule(0, "g1 feed", 0.0, random.random), 1_000) == []
