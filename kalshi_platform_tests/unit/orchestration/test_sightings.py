"""Ages by the observer's own clock, whatever other clocks tell."""

from __future__ import annotations

import pytest

from kalshi_platform.orchestration.supervision.sightings import Sightings
from kalshi_platform_tests.fixtures.clocks import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sightings(clock: FakeClock) -> Sightings:
    made = Sightings(clock)
    made.begin()
    return made


def later(clock: FakeClock, sightings: Sightings, seconds: float = 5.0) -> None:
    clock.step(seconds)
    sightings.begin()


def test_at_the_first_sight_a_clock_is_believed_and_from_then_on_the_observers(
    clock: FakeClock, sightings: Sightings
) -> None:
    assert sightings.age_s("row", "a", 40.0) == 40.0
    later(clock, sightings)
    clock.set_wall(7_200)
    assert sightings.age_s("row", "a", 7_245.0) == 45.0


def test_what_is_dated_in_the_future_is_none_until_it_changes(clock: FakeClock, sightings: Sightings) -> None:
    assert sightings.age_s("row", "a", -7_200.0) is None
    later(clock, sightings)
    assert sightings.age_s("row", "a", -7_195.0) is None
    later(clock, sightings)
    assert sightings.age_s("row", "b", -7_195.0) == 0.0
    later(clock, sightings, 50.0)
    assert sightings.age_s("row", "b", -7_145.0) == 50.0


@pytest.mark.parametrize(("told_s", "expected"), [(2.0, 2.0), (-50.0, 0.0), (50.0, 5.0), (7_200.0, 5.0)])
def test_a_change_lies_between_the_last_look_and_now(
    clock: FakeClock, sightings: Sightings, told_s: float, expected: float
) -> None:
    sightings.age_s("row", "a", 1.0)
    later(clock, sightings)
    assert sightings.age_s("row", "b", told_s) == expected


def test_what_could_not_be_asked_meanwhile_is_as_old_as_it_may_be(clock: FakeClock, sightings: Sightings) -> None:
    later(clock, sightings, 20.0)
    later(clock, sightings, 5.0)
    assert sightings.age_s("row", "a", 300.0) == 300.0, "not listed: it may have been there for long"
    assert sightings.age_s("run", "running", 300.0, is_listed=True) == 5.0, "listed: it was not there 5 s ago"


def test_a_life_is_measured_between_what_was_seen(clock: FakeClock, sightings: Sightings) -> None:
    later(clock, sightings)
    sightings.age_s("run", "running", is_listed=True)
    later(clock, sightings, 70.0)
    sightings.age_s("run", "ended", 1.0, is_listed=True)
    assert sightings.lived_s("run") == 69.0
    assert sightings.lived_s("another") is None


def test_a_pause_of_the_observer_is_noticed_by_its_monotonic_clock_alone(clock: FakeClock) -> None:
    sightings = Sightings(clock)
    sightings.begin()
    later(clock, sightings)
    clock.set_wall(-7_200)
    later(clock, sightings)
    assert sightings.attentive_s == 10.0
    later(clock, sightings, 31.0)
    assert sightings.attentive_s == 0.0
