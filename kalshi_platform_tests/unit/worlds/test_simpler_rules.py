"""Each rule that looks simpler is found to be wrong by the same worlds that find nothing in the product's rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl
import pytest

from kalshi_platform.deduplicator.coverage import checkpoints
from kalshi_platform.deduplicator.coverage import claims as coverage
from kalshi_platform.market.identity import DELTA_KEY
from kalshi_platform_tests.unit.worlds import derive as derive_module
from kalshi_platform_tests.unit.worlds import simpler
from kalshi_platform_tests.unit.worlds.check import WrongWorld, check
from kalshi_platform_tests.unit.worlds.derive import derive
from kalshi_platform_tests.unit.worlds.venue import Shape
from kalshi_platform_tests.unit.worlds.world import Rules, World

AT_ONCE = 15
WORLDS = 20 * AT_ONCE


@dataclass(frozen=True)
class Simpler:
    """A simpler rule: in the path, the bounds of claims, or the books of checkpoints; `words`: what it gets wrong."""

    words: str
    rules: Rules = field(default_factory=Rules)
    bounds: simpler.Bounds | None = None
    books: Callable[..., object] | None = None
    unknown: Callable[..., pl.DataFrame] | None = None
    shape: Shape = field(default_factory=Shape)


DELETES = Shape(gatherers=1, loss=0.0, broken=0.0, cut=0.0, kill=0.0, end=0.0, ask=0.1, length=100)
HIDING = Shape(gatherers=1, loss=0.0, broken=0.0, cut=0.0, kill=0.0, end=0.0, ask=0.0, length=100, hidden=0.1)
LONG_ONES = Shape(length=100, gatherers=1, shards=2, kill=0.01, steps_back=True)
SIMPLER = {
    "occurrence counted per gatherer": Simpler("is there", Rules(decoder=simpler.counted_per_gatherer)),
    "the start is claimed": Simpler("is claimed and there", bounds=simpler.closed_at_the_start, shape=LONG_ONES),
    "the end is claimed": Simpler("is claimed and there", bounds=simpler.closed_at_the_end, shape=LONG_ONES),
    "no margin": Simpler("is claimed and there", bounds=simpler.without_margin),
    "no margin to a market's own times": Simpler(
        "is claimed and there", bounds=simpler.without_margin_of_its_own, shape=LONG_ONES
    ),
    "checkpoint by >= the next delta": Simpler("book of", books=simpler.from_the_next_delta),
    "book_subscription until the ack": Simpler(
        "is claimed and there", Rules(session=simpler.FollowedToTheAck), shape=DELETES
    ),
    "production's key in the gatherer": Simpler("checkpoint of", Rules(gatherer_key=DELTA_KEY)),
    "unknown messages are passed over": Simpler("is claimed and there", unknown=simpler.passed_over, shape=HIDING),
    "unknown messages are believed where nothing follows": Simpler(
        "is claimed and there", unknown=simpler.believed_without_proof, shape=HIDING
    ),
    "cursor by exchange time": Simpler("is claimed and there", Rules(new_rows=simpler.by_time("exchange_ts_us"))),
    "cursor by receive time": Simpler("is claimed and there", Rules(new_rows=simpler.by_time("received_at_ns"))),
}


def wrong_worlds(rule: Simpler, most: int = WORLDS) -> tuple[int, list[str]]:
    """Go through worlds until one is wrong; return how many that took, and what is wrong with them."""
    tried = 0
    while tried < most:
        lived = [World(seed, rule.shape, rule.rules) for seed in range(tried, tried + AT_ONCE)]
        tried += AT_ONCE
        moments = [moment for world in lived for moment in world.moments]
        derive(moments)
        found = []
        for moment in moments:
            try:
                check(moment, books_at_checkpoints=rule.books is None)
            except WrongWorld as wrong:
                found.append(str(wrong))
        if any(rule.words in each for each in found):
            return tried, found
    return tried, []


@pytest.mark.parametrize("name", SIMPLER)
def test_a_simpler_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = SIMPLER[name]
    for module in (coverage, checkpoints):
        if rule.bounds is not None:
            monkeypatch.setattr(module, "watermarks", rule.bounds)
    if rule.unknown is not None:
        monkeypatch.setattr(derive_module, "truncate_subscriptions", rule.unknown)
    if rule.books is not None:
        monkeypatch.setattr(checkpoints, "fold_checkpoints", rule.books)
    assert wrong_worlds(rule)[1], f"{name}: not one of {WORLDS} worlds is wrong"


@pytest.mark.parametrize("shape", [Shape(), DELETES], ids=["faults", "deletes"])
def test_the_rules_as_they_are_are_not(shape: Shape) -> None:
    assert wrong_worlds(Simpler("", shape=shape), most=60) == (60, [])
