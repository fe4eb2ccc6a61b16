"""The plan of faults: repeatable, inside the run, and complete."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lab.proof.faults.schedule import GROUND, plan
from kalshi_platform.lab.proof.options import FaultLevel, ProofOptions, shortest_s

NAMES = ("g1", "g2", "g3")


@pytest.mark.parametrize("level", ["standard", "brutal"])
@pytest.mark.parametrize("seed", range(20))
def test_faults_are_spread_over_the_run_with_room_at_both_ends(level: FaultLevel, seed: int) -> None:
    planned = plan(level, NAMES, 120, seed)
    assert planned == plan(level, NAMES, 120, seed)
    times = [fault.at_s for fault in planned]
    assert times == sorted(times)
    assert times[0] >= 2
    assert times[-1] <= 120 - 4
    assert planned[-1].kind not in ("kill", "database_away")


def test_each_level_has_its_faults() -> None:
    assert plan("none", NAMES, 60, 1) == []
    standard = Counter(fault.kind for fault in plan("standard", NAMES, 60, 1))
    assert standard == {"cut": 3, "kill": 1, "drop_frame": 1, "rest_429": 1, "exchange_pause": 1}
    brutal = Counter(fault.kind for fault in plan("brutal", NAMES, 120, 1))
    assert brutal == standard + Counter(
        {"cut": 3, "database_away": 1, "stall": 1, "unknown_frames": 1, "clock_skew": 1}
    )
    assert {fault.lasts_s for fault in plan("brutal", NAMES, 120, 1) if fault.kind == "database_away"} == {30}


@pytest.mark.parametrize("seed", range(5))
def test_ground_does_every_kind_once_and_goes_round_the_gatherers(seed: int) -> None:
    planned = plan("ground", NAMES, 180, seed)
    assert planned == plan("ground", NAMES, 180, seed)
    assert [fault.kind for fault in planned] == [kind for kind, _ in GROUND]
    assert [fault.at_s for fault in planned] == sorted(fault.at_s for fault in planned)
    struck = [fault.gatherer for fault in planned if fault.gatherer is not None]
    assert len(struck) == sum(of_gatherer for _, of_gatherer in GROUND)
    assert all(first != second for first, second in pairwise(struck))
    assert set(struck) == set(NAMES)


@pytest.mark.parametrize("seed", range(5))
def test_a_short_run_of_ground_does_what_there_is_time_for(seed: int) -> None:
    planned = plan("ground", NAMES, shortest_s("ground", 3), seed)
    kinds = [fault.kind for fault in planned]
    assert 2 <= len(kinds) < len(GROUND)
    assert kinds == [kind for kind, _ in GROUND if kind in kinds]


def test_seeds_choose_other_kinds_for_a_short_run() -> None:
    assert len({tuple(fault.kind for fault in plan("ground", NAMES, 40, seed)) for seed in range(10)}) > 5


def test_seeds_differ() -> None:
    assert plan("standard", NAMES, 60, 1) != plan("standard", NAMES, 60, 2)


@pytest.mark.parametrize(("level", "kind", "takes_s"), [("databases", "database_away", 40), ("kills", "kill", 10)])
@pytest.mark.parametrize("gatherers", [1, 3, 9])
def test_each_gatherer_in_turn_with_time_to_recover(
    level: FaultLevel, kind: str, takes_s: float, gatherers: int
) -> None:
    names = tuple(f"g{number}" for number in range(1, gatherers + 1))
    seconds = shortest_s(level, gatherers)
    planned = plan(level, names, seconds, 1)
    assert [(fault.kind, fault.gatherer) for fault in planned] == [(kind, name) for name in names]
    assert {fault.lasts_s for fault in planned} == {30 if kind == "database_away" else 0}
    # Injection is one after the other, each as long as it takes: an even pace is late by the start of the first only.
    assert gatherers * takes_s + planned[0].at_s <= seconds


def test_a_run_too_short_for_its_plan_is_refused_with_the_seconds_it_needs(tmp_path: Path) -> None:
    options = ProofOptions(
        seconds=144, gatherers=3, rate=100, markets=10, seed=1, faults="databases", data_dir=tmp_path / "new"
    )
    with pytest.raises(ConfigurationError, match="at least 145"):
        options.check()
