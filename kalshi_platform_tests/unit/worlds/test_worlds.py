"""Whatever fails: what is claimed is whole, books from checkpoints are right, nothing is there twice.

`KALSHI_HYPOTHESIS=long` lives through more than 20,000 worlds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kalshi_platform_tests.unit.worlds.check import Figures, WrongWorld, check
from kalshi_platform_tests.unit.worlds.derive import derive
from kalshi_platform_tests.unit.worlds.venue import Shape
from kalshi_platform_tests.unit.worlds.world import World

LONG = os.environ.get("KALSHI_HYPOTHESIS") == "long"
worlds = settings(
    deadline=None,
    derandomize=not LONG,
    database=None,
    # A wrong world is named by its seed and shape; finding a smaller one would take minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
seeds = st.integers(0, 2**32)
shapes = st.builds(
    Shape,
    length=st.integers(3, 120),
    gatherers=st.integers(1, 4),
    shards=st.integers(1, 2),
    lag=st.sampled_from((0, 5, 20, 60)),
    loss=st.sampled_from((0.0, 0.005, 0.02, 0.1)),
    broken=st.sampled_from((0.0, 0.01)),
    cut=st.sampled_from((0.0, 0.02, 0.08)),
    kill=st.sampled_from((0.0, 0.02, 0.06)),
    end=st.sampled_from((0.0, 0.01)),
    ask=st.sampled_from((0.0, 0.03, 0.1)),
    damage=st.sampled_from((0.0, 0.0, 0.02, 0.1)),
    odd=st.sampled_from((0.0, 0.0, 0.1, 0.5)),
    hidden=st.sampled_from((0.0, 0.0, 0.05)),
    steps_back=st.booleans(),
)
calm_shapes = st.builds(
    Shape,
    length=st.integers(3, 120),
    gatherers=st.integers(1, 3),
    shards=st.integers(1, 2),
    steps_back=st.booleans(),
    **dict.fromkeys(("loss", "broken", "cut", "kill", "end", "ask", "damage", "odd", "hidden"), st.just(0.0)),
)


class Told(Figures):
    """Figures that are printed at the end of the tests (`-s` shows them)."""

    worlds = 0


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Told]]:
    figures: dict[str, Told] = {}
    yield figures
    for name, each in figures.items():
        sys.stdout.write(f"\n{name}: {each.worlds} worlds, {each}\n")


def look(several: list[tuple[int, Shape]], figures: Told) -> None:
    """Live through worlds and check every close of each."""
    lived = [World(seed, shape) for seed, shape in several]
    derive([moment for world in lived for moment in world.moments])
    for world in lived:
        figures.worlds += 1
        try:
            check_everything_read_is_recorded(world)
            for moment in world.moments:
                figures.add(check(moment))
        except WrongWorld as wrong:
            raise WrongWorld(f"World({world.seed}, {world.shape}): {wrong}") from None


def check_everything_read_is_recorded(world: World) -> None:
    """Whatever was killed meanwhile: the next process recorded what the journal had."""
    for gatherer in world.gatherers:
        if missing := gatherer.unrecorded():
            raise WrongWorld(f"{gatherer.name} read and did not record {missing}")


@settings(worlds, max_examples=2_500 if LONG else 10)
@given(several=st.lists(st.tuples(seeds, shapes), min_size=8, max_size=16))
def test_in_worlds_full_of_faults(told: dict[str, Told], several: list[tuple[int, Shape]]) -> None:
    look(several, told.setdefault("faults", Told()))


@settings(worlds, max_examples=200 if LONG else 10)
@given(several=st.lists(st.tuples(seeds, calm_shapes), min_size=8, max_size=16))
def test_in_worlds_without_faults_everything_is_claimed(
    told: dict[str, Told], several: list[tuple[int, Shape]]
) -> None:
    look(several, told.setdefault("calm", Told()))


def test_much_is_claimed_in_spite_of_faults() -> None:
    figures = Told()
    look([(seed, Shape(length=100)) for seed in range(40)], figures)
    assert figures.claimed > 0.2 * figures.observered
    assert figures.equal_times > 100
    assert figures.quiet_times > 1_000
    assert figures.checkpoints > 100
    assert figures.books > 100


def test_lost_blocks_cost_claims_and_nothing_else() -> None:
    figures = []
    for damage in (0.0, 0.05):
        told = Told()
        look([(seed, Shape(length=80, gatherers=1, damage=damage)) for seed in range(25)], told)
        figures.append(told)
    whole, damaged = figures
    assert 0.1 * whole.claimed < damaged.claimed < whole.claimed


QUIET: dict[str, Any] = {"loss": 0.0, "broken": 0.0, "cut": 0.0, "kill": 0.0, "end": 0.0, "ask": 0.0}


def test_unknown_messages_that_change_nothing_cost_little_of_what_is_claimed() -> None:
    figures: list[Figures] = []
    for odd in (0.0, 0.3):
        told = Told()
        look([(seed, Shape(length=120, gatherers=1, odd=odd, **QUIET)) for seed in range(25)], told)
        figures.append(told)
    without, with_odd = figures
    # A third of a world's messages are odd ones, in the place of deltas; what follows the last proof is never claimed.
    assert with_odd.claimed / with_odd.observered > 0.6 * without.claimed / without.observered
    assert with_odd.quiet_times > 0.5 * without.quiet_times


def test_messages_that_hide_changes_are_never_claimed_over() -> None:
    figures = Told()
    look([(seed, Shape(length=100, gatherers=1, hidden=0.1, odd=0.1, **QUIET)) for seed in range(40)], figures)
    assert figures.claimed > 0
