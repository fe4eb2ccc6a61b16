from __future__ import annotations

import random

import pytest

from kalshi_platform.simulator import universe
from kalshi_platform.simulator.scenario import Scenario, WrongState
from kalshi_platform.simulator.settings import SCENARIO_OFF, ScenarioSettings
from kalshi_platform_tests.unit.simulator.helpers import START_US, small_venue

SECOND_US = 1_000_000


def test_a_market_lives_from_created_to_settled_and_the_clock_emits_nothing() -> None:
    venue, activity, sink = small_venue()
    settings = ScenarioSettings(
        births_per_minute=1, markets_per_birth=1, open_after_s=2, life_s=10, determine_after_s=3, settle_after_s=4,
        mischief_per_minute=0,
    )  # fmt: skip
    scenario = Scenario(venue, random.Random(1), settings, visible_delay_us=SECOND_US)
    statuses: list[str] = []
    born: str | None = None
    for tick in range(0, 50_000, 100):
        now_us = START_US + tick * 1_000
        scenario.advance(now_us)
        activity.run(now_us, now_us + 100_000, 10)
        if born is None:
            created = [each for each in sink.of("lifecycle") if each[4].get("event_type") == "created"]
            born = created[0][1] if created else None
        elif not statuses or venue.markets[born].status != statuses[-1]:
            statuses.append(venue.markets[born].status)
    assert statuses == ["initialized", "active", "closed", "determined", "finalized"]
    assert born is not None
    assert not venue.markets[born].book.levels[0]
    own = [each[4]["event_type"] for each in sink.of("lifecycle") if each[1] == born]
    assert own == ["created", "determined", "settled"]
    events = [each[3] for each in sink.of("lifecycle")]
    assert events[:2] == ["event_lifecycle", "market_lifecycle_v2"]


def test_closing_cancels_every_order_in_one_microsecond() -> None:
    venue, _, sink = small_venue()
    scenario = Scenario(venue, random.Random(1), SCENARIO_OFF, visible_delay_us=0)
    market = venue.quoting[0]
    levels = len(market.book.levels[0]) + len(market.book.levels[1])
    scenario.close(market, START_US)
    deltas = sink.of("delta")
    assert len(deltas) == levels > 0
    assert len({each[2] for each in deltas}) == 1
    assert market.book.top() == (0, 0, 0, 0)
    assert market not in venue.quoting
    assert [each[4]["event_type"] for each in sink.of("lifecycle")] == ["close_date_updated"]


def test_deactivated_markets_rest_and_activation_cancels() -> None:
    venue, activity, sink = small_venue()
    scenario = Scenario(venue, random.Random(1), SCENARIO_OFF, visible_delay_us=0)
    market = venue.quoting[0]
    book = dict(market.book.levels[0])
    scenario.deactivate(market, START_US)
    activity.run(START_US, START_US + SECOND_US, 500)
    assert market.book.levels[0] == book
    scenario.activate(market, START_US + SECOND_US)
    assert not market.book.levels[0]
    assert [each[4]["is_deactivated"] for each in sink.of("lifecycle")] == [True, False]


def test_wrong_transitions_are_refused() -> None:
    venue, _, _ = small_venue()
    scenario = Scenario(venue, random.Random(1), SCENARIO_OFF, visible_delay_us=0)
    with pytest.raises(WrongState):
        scenario.settle(venue.quoting[0], START_US)


def test_scenario_off_changes_nothing() -> None:
    venue, _, sink = small_venue()
    scenario = Scenario(venue, random.Random(1), SCENARIO_OFF, visible_delay_us=0)
    for second in range(600):
        scenario.advance(START_US + second * SECOND_US)
    assert sink.published == []
    assert {market.status for market in venue.quoting} == {universe.ACTIVE}
