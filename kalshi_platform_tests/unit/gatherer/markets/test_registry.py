"""Which markets are wanted, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kalshi_platform.catalog.store import Change
from kalshi_platform.gatherer.markets.catalog_poller import CatalogPoller
from kalshi_platform.gatherer.markets.registry import OPEN_LEAD_US, Registry
from kalshi_platform.gatherer.settings import MarketFilter
from kalshi_platform.market.catalog import MarketInfo
from kalshi_platform.market.parts import MarketPart
from kalshi_platform.market.times import US_PER_S

NOW = 1_795_380_000 * US_PER_S
HOUR = 3_600 * US_PER_S


def market(ticker: str = "KXRAIN-26NOV-T1", **values: Any) -> MarketInfo:
    fields: dict[str, Any] = {
        "ticker": ticker,
        "event_ticker": ticker.rpartition("-")[0],
        "series_ticker": None,
        "market_type": "binary",
        "status": "active",
        "title": None,
        "open_time_us": NOW - HOUR,
        "close_time_us": NOW + HOUR,
        "expected_expiration_us": None,
        "created_us": None,
        "updated_us": None,
        "result": None,
        "settlement_value_e6": None,
        "settlement_ts_us": None,
        "price_level_structure": None,
        "price_ranges": None,
        "is_provisional": False,
        "mve_collection_ticker": None,
        "exchange_index": 0,
        "can_close_early": None,
        "payload": "",
        **values,
    }
    return MarketInfo(**fields)


def test_a_market_is_wanted_from_a_little_before_it_opens_to_its_close() -> None:
    registry = Registry(MarketFilter())
    registry.update([market(status="initialized", open_time_us=NOW + HOUR, exchange_index=2)])
    assert registry.desired_markets(NOW) == {}
    assert registry.desired_markets(NOW + HOUR - OPEN_LEAD_US) == {"KXRAIN-26NOV-T1": 2}
    registry.update([market(status="closed")])
    assert registry.desired_markets(NOW + 2 * HOUR) == {}
    assert not registry.contains("KXRAIN-26NOV-T1")


@pytest.mark.parametrize("status", ["closed", "determined", "disputed", "amended", "finalized", "vanished"])
def test_markets_that_are_over_are_never_wanted(status: str) -> None:
    registry = Registry(MarketFilter())
    assert registry.update([market(status=status)]) == 0
    assert registry.desired_markets(NOW) == {}


def test_a_paused_market_is_still_followed() -> None:
    registry = Registry(MarketFilter())
    registry.update([market(status="inactive")])
    assert list(registry.desired_markets(NOW)) == ["KXRAIN-26NOV-T1"]


def test_a_passed_close_is_to_be_confirmed_again_and_again_until_it_is_true_or_moves() -> None:
    registry = Registry(MarketFilter(), close_grace_s=5)
    registry.update([market(close_time_us=NOW)])
    assert registry.due_for_refresh(NOW + 4 * US_PER_S) == []
    assert registry.due_for_refresh(NOW + 5 * US_PER_S) == ["KXRAIN-26NOV-T1"]
    assert registry.due_for_refresh(NOW + 6 * US_PER_S) == []
    registry.update([market(close_time_us=NOW)])
    assert registry.due_for_refresh(NOW + 21 * US_PER_S) == ["KXRAIN-26NOV-T1"]
    assert list(registry.desired_markets(NOW + 21 * US_PER_S)) == ["KXRAIN-26NOV-T1"]
    registry.update([market(close_time_us=NOW + HOUR)])
    assert registry.due_for_refresh(NOW + 60 * US_PER_S) == []


def test_an_announced_end_overrules_stale_answers_for_a_while() -> None:
    registry = Registry(MarketFilter())
    registry.update([market()])
    registry.mark_ended("KXRAIN-26NOV-T1")
    registry.update([market()])
    assert registry.desired_markets(NOW) == {}
    assert registry.desired_markets(NOW + 121 * US_PER_S) == {}
    registry.update([market()])
    assert list(registry.desired_markets(NOW + 122 * US_PER_S)) == ["KXRAIN-26NOV-T1"]


def test_a_reopened_market_is_accepted_at_once() -> None:
    registry = Registry(MarketFilter())
    registry.mark_ended("KXRAIN-26NOV-T1")
    registry.clear_ended("KXRAIN-26NOV-T1")
    registry.update([market()])
    assert list(registry.desired_markets(NOW)) == ["KXRAIN-26NOV-T1"]


def test_an_equal_update_changes_nothing() -> None:
    registry = Registry(MarketFilter())
    assert registry.update([market(), market("KXRAIN-26NOV-T2")]) == 2
    assert registry.update([market(), market("KXRAIN-26NOV-T2", title="other words")]) == 0
    assert registry.update([market(exchange_index=1)]) == 1


COMBO = market("KXMVESPORTS-S1-ABC")
COLLECTION = market("KXOTHER-S1", mve_collection_ticker="KXMVE-1")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (MarketFilter(), {"KXRAIN-26NOV-T1", "KXFED-26DEC-A"}),
        (
            MarketFilter(include_combos=True),
            {"KXRAIN-26NOV-T1", "KXFED-26DEC-A", "KXMVESPORTS-S1-ABC", "KXOTHER-S1"},
        ),
        (MarketFilter(series=("KXFED*",)), {"KXFED-26DEC-A"}),
        (MarketFilter(tickers=("*-T1",)), {"KXRAIN-26NOV-T1"}),
        (MarketFilter(categories=("Economics",)), {"KXFED-26DEC-A"}),
        (MarketFilter(categories=("Economics",), tickers=("*-T1",)), set()),
        (MarketFilter(categories=("Unheard of",)), set()),
        (MarketFilter(shard=MarketPart(1, 2)), {"KXRAIN-26NOV-T1"}),
        (MarketFilter(shard=MarketPart(2, 2)), {"KXFED-26DEC-A"}),
    ],
)
def test_filters(chosen: MarketFilter, expected: set[str]) -> None:
    registry = Registry(chosen)
    registry.set_parents({"KXFED": "Economics", "KXRAIN": "Climate"}, {})
    registry.update([market(), market("KXFED-26DEC-A"), COMBO, COLLECTION])
    assert set(registry.desired_markets(NOW)) == expected


def test_a_market_is_admitted_once_its_category_is_known() -> None:
    registry = Registry(MarketFilter(categories=("Sports",)))
    registry.update([market("ODDLY-NAMED", event_ticker="ODD")])
    assert registry.desired_markets(NOW) == {}
    registry.set_parents({"KXBALL": "Sports"}, {"ODD": "KXBALL"})
    registry.update([market("ODDLY-NAMED", event_ticker="ODD")])
    assert set(registry.desired_markets(NOW)) == {"ODDLY-NAMED"}


def test_following_the_catalog_goes_on_from_the_change_that_was_read() -> None:
    class Store:
        def __init__(self) -> None:
            self.newest, self.is_the_same = Change(5, "a"), True
            self.reads: list[Change] = []

        def newest_change(self) -> Change:
            return self.newest

        def contains_change(self, change: Change) -> bool:
            return self.is_the_same

        def markets_to_subscribe(self) -> list[MarketInfo]:
            return [market()]

        def changed_since(self, change: Change) -> list[MarketInfo]:
            self.reads.append(change)
            return [market("KXNEW-1-A")]

    store, registry = Store(), Registry(MarketFilter())
    follower = CatalogPoller(store, registry, parents=False)  # type: ignore[arg-type]
    assert [follower.poll(), follower.poll()] == [1, 0]
    assert store.reads == []
    store.newest = Change(8, "b")
    assert follower.poll() == 1
    assert store.reads == [Change(5, "a")]
    assert set(registry.desired_markets(NOW)) == {"KXRAIN-26NOV-T1", "KXNEW-1-A"}
    # A catalog that was restored gives numbers again: it is read again.
    store.newest, store.is_the_same = Change(9, "c"), False
    follower.poll()
    assert store.reads == [Change(5, "a")]


def test_announced_ends_expire_also_without_followed_books() -> None:
    registry = Registry(MarketFilter())
    registry.update([market(), market("KXRAIN-26NOV-T2")])
    registry.update([market(status="finalized")])
    registry.mark_ended("KXRAIN-26NOV-T2")
    for now_us in (NOW, NOW + 200 * US_PER_S):
        registry.expire_ended(now_us)
    assert registry.counts() == {}
    # The announcement of the end no longer outweighs anything.
    assert registry.update([market("KXRAIN-26NOV-T2")]) == 1


def test_the_wanted_markets_are_one_object_until_something_changes() -> None:
    registry = Registry(MarketFilter())
    registry.update([market(), market("KXRAIN-26NOV-T2", status="initialized", open_time_us=NOW + HOUR)])
    first = registry.desired_markets(NOW)
    assert registry.desired_markets(NOW + 1) is first
    registry.update([market(), market("KXRAIN-26NOV-T3", status="initialized", open_time_us=NOW + 2 * HOUR)])
    assert registry.desired_markets(NOW + 2) is first
    assert set(registry.desired_markets(NOW + HOUR)) == {"KXRAIN-26NOV-T1", "KXRAIN-26NOV-T2"}
    assert set(first) == {"KXRAIN-26NOV-T1"}
    registry.update([market("KXRAIN-26NOV-T2", status="initialized", open_time_us=NOW + 3 * HOUR)])
    assert set(registry.desired_markets(NOW + HOUR + 1)) == {"KXRAIN-26NOV-T1"}


def test_an_unknown_status_is_not_followed_and_stops_nothing() -> None:
    registry = Registry(MarketFilter())
    registry.update([market(status="halted"), market("KXRAIN-26NOV-T2")])
    assert set(registry.desired_markets(NOW)) == {"KXRAIN-26NOV-T2"}
    assert registry.counts() == {"halted": 1, "active": 1}


def test_a_slow_listing_does_not_block_other_calls() -> None:
    registry = Registry(MarketFilter())
    registry.update([market()])
    seen: list[int] = []

    def listing() -> Iterator[MarketInfo]:
        for number in range(2_500):
            if number % 1_000 == 0:
                seen.append(len(registry.desired_markets(NOW)))
            yield market(f"KXLONG-{number}")

    registry.update(listing())
    assert seen == [1, 1_001, 2_001]
    assert len(registry.desired_markets(NOW)) == 2_501
