"""Ages by the observer's own clock, whatever other clocks say."""

from __future__ import annotations

import pytest

from kalshi_platform.orchestration.supervision.age_tracker import AgeTracker
from kalshi_platform_tests.fixtures.clocks import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ages(clock: FakeClock) -> AgeTracker:
    made = AgeTracker(clock)
    made.start_round()
    return made


def later(clock: FakeClock, ages: AgeTracker, seconds: float = 5.0) -> None:
    clock.step(seconds)
    ages.start_round()


def test_an_unchanged_value_ages_by_the_observers_clock_after_the_first_sight(
    clock: FakeClock, ages: AgeTracker
) -> None:
    assert ages.age_s("row", "a", 40.0) == 40.0
    later(clock, ages)
    clock.set_wall(7_200)
    assert ages.age_s("row", "a", 7_245.0) == 45.0


def test_a_value_dated_in_the_future_has_no_age_until_it_changes(clock: FakeClock, ages: AgeTracker) -> None:
    assert ages.age_s("row", "a", -7_200.0) is None
    later(clock, ages)
    assert ages.age_s("row", "a", -7_195.0) is None
    later(clock, ages)
    assert ages.age_s("row", "b", -7_195.0) == 0.0
    later(clock, ages, 50.0)
    assert ages.age_s("row", "b", -7_145.0) == 50.0


@pytest.mark.parametrize(("dated_s", "expected"), [(2.0, 2.0), (-50.0, 0.0), (50.0, 5.0), (7_200.0, 5.0)])
def test_a_changed_value_is_dated_between_the_last_round_and_now(
    clock: FakeClock, ages: AgeTracker, dated_s: float, expected: float
) -> None:
    ages.age_s("row", "a", 1.0)
    later(clock, ages)
    assert ages.age_s("row", "b", dated_s) == expected


def test_a_new_key_that_is_not_listed_is_as_old_as_it_says(clock: FakeClock, ages: AgeTracker) -> None:
    later(clock, ages, 20.0)
    later(clock, ages, 5.0)
    assert ages.age_s("row", "a", 300.0) == 300.0, "not listed: it may have been there for long"
    assert ages.age_s("run", "running", 300.0, is_listed=True) == 5.0, "listed: it was not there 5 s ago"


def test_a_lifetime_is_the_time_between_two_values_seen(clock: FakeClock, ages: AgeTracker) -> None:
    later(clock, ages)
    ages.age_s("run", "running", is_listed=True)
    later(clock, ages, 70.0)
    ages.age_s("run", "ended", 1.0, is_listed=True)
    assert ages.lifetime_s("run") == 69.0
    assert ages.lifetime_s("another") is None


def test_a_pause_of_the_observer_is_noticed_by_its_monotonic_clock_alone(clock: FakeClock) -> None:
    ages = AgeTracker(clock)
    ages.start_round()
    later(clock, ages)
    clock.set_wall(-7_200)
    later(clock, ages)
    assert ages.supervising_s == 10.0
    later(clock, ages, 31.0)
    assert ages.supervising_s == 0.0
