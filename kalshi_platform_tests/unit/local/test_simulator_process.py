"""How long the simulated exchange may take to start, and what is said meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from kalshi_platform.errors import ExchangeUnavailable
from kalshi_platform.local.simulator_process import SimulationOptions, SimulatorAddresses, start_simulator
from kalshi_platform_tests.fixtures.clocks import FakeClock

ADDRESSES = SimulatorAddresses(rest_url="r", ws_url="w", control_url="c", key_id="k", key_file="f", pid=1)


class SlowExchange:
    """A group whose child writes its addresses after `needs_s`, and ends after `ends_s`."""

    def __init__(self, folder: Path, clock: FakeClock, needs_s: float, ends_s: float) -> None:
        self.log_dir = self._folder = folder
        self._clock, self._needs_s, self._ends_s = clock, needs_s, ends_s

    def start(self, _spec: object) -> None: ...

    def pid(self, _name: str) -> int | None:
        return 1 if self._clock.monotonic() < self._ends_s else None

    def poll(self) -> None:
        if self._clock.monotonic() >= self._needs_s:
            (self._folder / "exchange.json").write_bytes(msgspec.json.encode(ADDRESSES))


def start(folder: Path, needs_s: float, *, ends_s: float = 1e9, is_stopped: bool = False) -> list[str]:
    """Start an exchange that needs so long; return what was said."""
    said: list[str] = []
    clock, stop = FakeClock(), threading.Event()
    if is_stopped:
        stop.set()
    group = cast("Any", SlowExchange(folder, clock, needs_s, ends_s))
    found = start_simulator(group, SimulationOptions(), {}, folder, clock, say=said.append, stop=stop)
    assert found == ADDRESSES
    return said


def test_exchange_that_starts_slowly_is_waited_for_and_said(tmp_path: Path) -> None:
    assert start(tmp_path, 1.0) == []
    said = start(tmp_path, 100.0)
    assert said[0].startswith("waiting for the simulated exchange (15 s)")
    assert len(said) == 6


def test_exchange_that_ends_or_never_starts_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ExchangeUnavailable, match=r"ended as it started; see .*exchange\.log"):
        start(tmp_path, 100.0, ends_s=50.0)
    with pytest.raises(ExchangeUnavailable, match="did not start"):
        start(tmp_path, 1_000.0)


def test_stop_while_the_exchange_starts_leaves_it_half_a_minute(tmp_path: Path) -> None:
    assert start(tmp_path, 5.0, is_stopped=True) == []
    with pytest.raises(ExchangeUnavailable, match="did not start"):
        start(tmp_path, 100.0, is_stopped=True)
