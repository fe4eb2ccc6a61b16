"""Names of sessions and streams."""

from __future__ import annotations

from kalshi_platform.gatherer.ids import IdSource
from kalshi_platform_tests.fixtures.clocks import FakeClock


def test_ids_ascend_also_when_the_clock_stands_still_or_steps_back() -> None:
    clock = FakeClock()
    source = IdSource("g1", clock)
    ids = [source.new_id() for _ in range(3)]
    clock.step(-3600)
    ids += [source.new_session_id(), source.new_id()]
    assert ids == sorted(set(ids))
    assert all(0 < number < 2**63 for number in ids)
    assert source.sessions == {ids[3]}
    source.end_session(ids[3])
    assert source.sessions == frozenset()


def test_gatherers_that_start_together_differ() -> None:
    clock = FakeClock()
    assert len({IdSource(f"g{number}", clock).new_id() for number in range(1, 9)}) == 8


def test_a_restart_continues_above() -> None:
    clock = FakeClock()
    before = IdSource("g1", clock).new_id()
    clock.step(0.001)
    assert IdSource("g1", clock).new_id() > before
