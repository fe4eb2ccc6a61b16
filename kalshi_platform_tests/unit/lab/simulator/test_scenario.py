from __future__ import annotations

import json
import random
from typing import Any

import pytest

from kalshi_platform.lab.simulator.engine import universe
from kalshi_platform.lab.simulator.engine.scenario import Scenario, WrongState
from kalshi_platform.lab.simulator.engine.venue import Venue
from kalshi_platform.lab.simulator.settings import SCENARIO_OFF, ScenarioSettings
from kalshi_platform_tests.unit.lab.simulator.helpers import START_US, ListSink, small_venue

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


def lives(settings: ScenarioSettings, seconds: int, markets: int = 10) -> tuple[Venue, ListSink]:
    """Run a scenario by its own clock, with orders; return the venue and what it published."""
    venue, activity, sink = small_venue(markets)
    scenario = Scenario(venue, random.Random(1), settings, visible_delay_us=SECOND_US)
    for tick in range(seconds * 10):
        now_us = START_US + tick * 100_000
        scenario.advance(now_us)
        activity.run(now_us, now_us + 100_000, 10)
    return venue, sink


BUSY = ScenarioSettings(
    births_per_minute=12, markets_per_birth=2, open_after_s=1, life_s=10, determine_after_s=2, settle_after_s=3,
    mischief_per_minute=30, combos=True,
)  # fmt: skip


def test_over_time_every_lifecycle_message_appears() -> None:
    _, sink = lives(BUSY, 60)
    kinds = {(each[3], each[4].get("event_type")) for each in sink.of("lifecycle")}
    types = (
        "created", "activated", "deactivated", "close_date_updated", "determined", "settled",
        "price_level_structure_updated", "metadata_updated",
    )  # fmt: skip
    assert {("market_lifecycle_v2", each) for each in types} <= kinds
    assert {("event_lifecycle", None), ("event_fee_update", None)} <= kinds
    results = {each[4]["result"] for each in sink.of("lifecycle") if each[4].get("event_type") == "determined"}
    assert results == {"yes", "no", "scalar"}


def test_no_lifecycle_message_without_a_time_comes_twice() -> None:
    """Two of the same content could not be told apart by anybody."""
    _, sink = lives(BUSY, 120)
    bodies = [json.dumps(each[4], sort_keys=True) for each in sink.of("lifecycle")]
    assert len(bodies) == len(set(bodies))


def test_a_disputed_market_is_determined_twice_and_settled_by_the_second_result() -> None:
    venue, sink = lives(BUSY, 60)
    twice = [market for market in venue.market_list if len(own_types(sink, market.ticker, "determined")) == 2]
    assert twice
    for market in twice:
        first, second = own_types(sink, market.ticker, "determined")
        assert {first["result"], second["result"]} == {"yes", "no"}
        assert market.result == second["result"]
        assert market.status in (universe.AMENDED, universe.FINALIZED)
    assert any(market.status == universe.FINALIZED for market in twice)


def test_a_provisional_market_in_which_nothing_happened_vanishes_at_its_determination() -> None:
    venue, sink = lives(BUSY, 60)
    gone = [market for market in venue.market_list if market.has_vanished]
    assert gone
    for market in gone:
        assert market.is_provisional
        assert market.trades == []
        assert venue.visible(market.ticker, START_US + 3_600 * SECOND_US) is None
        assert own_types(sink, market.ticker, "settled") == []
        assert own_types(sink, market.ticker, "determined")


def test_a_traded_provisional_market_stays() -> None:
    venue, _, _ = small_venue()
    scenario = Scenario(venue, random.Random(1), SCENARIO_OFF, visible_delay_us=0)
    market = scenario.create(START_US, provisional=True)
    venue.print_trade(market, START_US + 1, yes_price_e4=5_000, count_e2=100, taker_side=0)
    scenario.close(market, START_US + 2)
    scenario.determine(market, START_US + 3, "yes")
    assert venue.visible(market.ticker, START_US + 4) is market


def test_a_closed_market_reopens_with_a_moved_close_and_an_activation() -> None:
    venue, _, sink = small_venue()
    scenario = Scenario(venue, random.Random(1), SCENARIO_OFF, visible_delay_us=0)
    market = venue.quoting[0]
    scenario.close(market, START_US)
    scenario.reopen(market, START_US + SECOND_US, START_US + 60 * SECOND_US)
    assert market in venue.quoting
    types = [each[4]["event_type"] for each in sink.of("lifecycle")]
    assert types == ["close_date_updated", "close_date_updated", "activated"]
    scenario.advance(START_US + 60 * SECOND_US)
    assert market.status == universe.CLOSED


def test_a_scalar_result_needs_a_value_and_announces_it() -> None:
    venue, _, sink = small_venue()
    scenario = Scenario(venue, random.Random(1), SCENARIO_OFF, visible_delay_us=0)
    market = venue.quoting[0]
    scenario.close(market, START_US)
    with pytest.raises(WrongState):
        scenario.determine(market, START_US, "scalar")
    scenario.determine(market, START_US, "scalar", 3_700)
    assert sink.of("lifecycle")[-1][4]["settlement_value"] == "0.3700"
    assert market.market_type == "scalar"


def test_markets_listed_by_others_close_by_the_same_clock() -> None:
    venue, _, _ = small_venue()
    scenario = Scenario(venue, random.Random(1), SCENARIO_OFF, visible_delay_us=0)
    scenario.advance(START_US)
    market = venue.quoting[0]
    scenario.advance(market.close_us + 1)
    assert market.status == universe.CLOSED


def test_a_clock_that_turns_over_many_markets_touches_only_those_that_are_due() -> None:
    venue, _, _ = small_venue(2_000)
    scenario = Scenario(venue, random.Random(1), SCENARIO_OFF, visible_delay_us=0)
    scenario.advance(START_US)
    looked: list[str] = []

    class Watching(dict[str, Any]):
        def __getitem__(self, ticker: str) -> Any:
            looked.append(ticker)
            return super().__getitem__(ticker)

    venue.markets = Watching(venue.markets)
    for second in range(1, 100):
        scenario.advance(START_US + second * SECOND_US)
    assert looked == []


def own_types(sink: ListSink, ticker: str, event_type: str) -> list[dict[str, Any]]:
    return [each[4] for each in sink.of("lifecycle") if each[1] == ticker and each[4].get("event_type") == event_type]
