"""A clock at another pace: its pieces, its file, and what waits for a moment of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.clock import SYSTEM_CLOCK, wait_until_s
from kalshi_platform.gatherer.capture.exchange_clock import ExchangeClock
from kalshi_platform.lab.simulated_clock import ClockFile, Piece, SimulatedClock, catching_up, command_line, ns_of
from kalshi_platform_tests.fixtures.clocks import FakeClock

START = datetime(2026, 11, 1, tzinfo=UTC)
SECOND_NS = 1_000_000_000


class PacedClock(FakeClock):
    """A fake whose `now` runs at a pace."""

    speed = 360.0

    def now_ns(self) -> int:
        return ns_of(START) + round(self.monotonic() * self.speed * 1e9)

    def pace(self) -> float:
        return self.speed


def test_clock_at_speed_passes_seconds_of_now_in_seconds_of_the_machine() -> None:
    wall_ns = SYSTEM_CLOCK.now_ns()
    clock = SimulatedClock([Piece(wall_ns - 10 * SECOND_NS, ns_of(START), 360.0)])
    passed_s = (clock.now() - START).total_seconds()
    assert passed_s >= 3_600
    assert (clock.pace(), clock.now().tzinfo) == (360.0, UTC)
    assert clock.monotonic() == pytest.approx(SYSTEM_CLOCK.monotonic(), abs=5)


def test_clock_before_its_beginning_stands_still() -> None:
    clock = SimulatedClock([Piece(SYSTEM_CLOCK.now_ns() + 3_600 * SECOND_NS, ns_of(START), 360.0)])
    assert (clock.now(), clock.pace()) == (START, 0.0)


@given(
    speed=st.floats(1.01, 10_000),
    behind_s=st.integers(1, 30 * 86_400),
    looks=st.lists(st.integers(0, 10**16), min_size=2),
)
def test_clock_that_catches_up_never_steps_back_and_ends_at_the_time_of_the_machine(
    speed: float, behind_s: int, looks: list[int]
) -> None:
    wall_ns = ns_of(START)
    fast, level = catching_up(wall_ns - behind_s * SECOND_NS, speed, wall_ns)
    clock = SimulatedClock([fast, level])
    seen = [clock._piece(wall_ns + each).at(wall_ns + each) for each in sorted(looks)]
    # A float has 53 bits: a microsecond of a month.
    assert all(after >= before - 1_000 for before, after in pairwise(seen))
    assert level.at(level.wall_ns) == level.wall_ns
    assert fast.at(level.wall_ns) == pytest.approx(level.wall_ns, abs=1_000_000)


def test_clock_of_the_future_or_slower_than_the_machine_catches_up_with_nothing() -> None:
    for start_ns, speed in ((1, 2.0), (-1, 1.0)):
        with pytest.raises(ValueError, match="catches up"):
            catching_up(start_ns, speed, 0)


def test_changed_speed_goes_on_from_the_time_that_was_reached(tmp_path: Path) -> None:
    file = ClockFile(tmp_path / "clock")
    wall_ns = SYSTEM_CLOCK.now_ns()
    file.write([Piece(wall_ns - SECOND_NS, ns_of(START), 100.0)])
    stopped = file.change_speed(0.0, lead_s=0.0)
    first, second = file.read()
    assert second == stopped
    assert stopped.simulated_ns == first.at(stopped.wall_ns) >= ns_of(START) + 100 * SECOND_NS
    clock = SimulatedClock(file.read())
    assert clock.now_ns() == clock.now_ns() == stopped.simulated_ns


def test_process_follows_the_clock_of_a_file(tmp_path: Path) -> None:
    file = ClockFile(tmp_path / "clock")
    file.write([Piece(SYSTEM_CLOCK.now_ns() + 3_600 * SECOND_NS, ns_of(START), 360.0)])
    clock = file.clock()
    assert clock.now() == START
    file.write([Piece(SYSTEM_CLOCK.now_ns(), ns_of(START), 1_000_000.0)])
    never = threading.Event()
    while clock.now() == START:
        never.wait(0.01)
    assert command_line(file.path, "status") == [
        sys.executable, "-m", "kalshi_platform.lab.simulated_clock", str(file.path), "status",
    ]  # fmt: skip


def test_command_of_the_platform_runs_by_the_clock_of_a_file(tmp_path: Path) -> None:
    file = ClockFile(tmp_path / "clock")
    file.write([Piece(SYSTEM_CLOCK.now_ns(), ns_of(START), 0.0)])
    done = subprocess.run(command_line(file.path, "--help"), capture_output=True, text=True, check=True, timeout=60)
    assert "gather" in done.stdout


def test_wait_for_a_moment_of_now_is_shorter_by_the_pace() -> None:
    clock = PacedClock()
    assert wait_until_s(clock, 60.0) == pytest.approx(1 / 6)
    clock.speed = 0.0
    assert wait_until_s(clock, 60.0) == 1.0


def test_exchange_clock_runs_at_the_pace_of_now() -> None:
    clock = PacedClock()
    exchange = ExchangeClock(clock, lambda: None)
    clock.step(10.0)
    assert exchange.now_us() == pytest.approx(ns_of(START) / 1_000 + 3_600e6, abs=1_000)
