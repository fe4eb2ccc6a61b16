"""The plan of faults: repeatable, inside the run, and complete."""

from __future__ import annotations

from collections import Counter

import pytest

from kalshi_platform.proof.options import FaultLevel
from kalshi_platform.proof.schedule import plan

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


def test_seeds_differ() -> None:
    assert plan("standard", NAMES, 60, 1) != plan("standard", NAMES, 60, 2)
