"""How long there has been too little of something, and what came within the last minute."""

from __future__ import annotations

from kalshi_platform.monitoring.shortfall import LastMinute, Shortfall


def test_a_shortfall_lasts_from_its_last_gain() -> None:
    short = Shortfall()
    short.update(95, 100, 0.0)
    assert short.lasted_s(10.0) is None
    # A sync gains all the time; what only goes up and down does not.
    for second in range(60):
        short.update(second, 10_000, float(second))
    assert short.lasted_s(60.0) == 60.0
    for second in range(60, 120, 10):
        short.update(100 * second, 20_000, float(second))
    assert short.lasted_s(120.0) == 10.0
    for second in range(120, 180, 2):
        short.update(3 + second % 4, 10_000, float(second))
    assert short.lasted_s(180.0) == 70.0
    short.update(9_000, 10_000, 181.0)
    assert short.lasted_s(200.0) is None


def test_a_small_number_gains_by_one() -> None:
    short = Shortfall()
    short.update(0, 3, 0.0)
    short.update(1, 3, 50.0)
    assert short.lasted_s(60.0) == 10.0


def test_nothing_wanted_is_no_shortfall() -> None:
    short = Shortfall()
    short.update(0, 0, 0.0)
    assert short.lasted_s(100.0) is None


def test_growth_is_that_of_about_a_minute() -> None:
    minute = LastMinute()
    assert minute.growth == 0
    for second in range(0, 300, 5):
        minute.update(second, float(second))
    assert minute.growth == 60
    minute.update(295, 1_000.0)
    minute.update(295, 1_030.0)
    minute.update(295, 1_060.0)
    assert minute.growth == 0
