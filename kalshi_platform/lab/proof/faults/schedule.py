"""Which faults a run gets, and when: seeded, spread over the run, with warm-up and cool-down left free. Pure.

`databases` and `kills` do one thing to every gatherer in turn; `ground` does each kind once, in a fixed order, to the
gatherers in turn; the other plans mix kinds, in an order of the seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from kalshi_platform.lab.proof.options import DATABASE_AWAY_S, FaultLevel

_TAKES_S = {
    "cut": 3.0, "kill": 9.0, "drop_frame": 2.0, "rest_429": 3.0, "exchange_pause": 2.0, "database_away": 36.0,
    "stall": 9.0, "unknown_frames": 2.0, "clock_skew": 6.0,
    "export_fails": 4.0, "production_clock_back": 10.0, "production_partitions_dropped": 5.0,
    "gatherers_partitions_dropped": 5.0, "server_killed": 12.0, "clock_ahead": 10.0, "clock_behind": 10.0,
    "second_process": 18.0, "flood": 14.0, "restored_from_copy": 22.0, "failed_over": 22.0, "production_restored": 14.0,
    "poison_ticker": 14.0,
}  # fmt: skip
"""About how long a fault and its recovery take: its share of the run."""
_SLOW = frozenset({"kill", "database_away", "stall", "rest_429"})
_WARM_UP_S, _COOL_DOWN_S = 2.0, 4.0
GROUND: tuple[tuple[str, bool], ...] = (
    ("export_fails", False), ("production_clock_back", False), ("production_partitions_dropped", False),
    ("gatherers_partitions_dropped", False), ("server_killed", True), ("clock_ahead", True), ("clock_behind", True),
    ("second_process", True), ("flood", True), ("restored_from_copy", True), ("failed_over", True),
    ("production_restored", False), ("poison_ticker", False),
)  # fmt: skip
"""The kinds of `ground` in their order, and whether each is done to one gatherer. What would jam all comes last."""


@dataclass(frozen=True)
class PlannedFault:
    """A fault, not before `at_s` seconds of the run; `lasts_s` is its own length where it has one."""

    at_s: float
    kind: str
    gatherer: str | None
    lasts_s: float = 0.0


def plan(level: FaultLevel, gatherers: Sequence[str], seconds: float, seed: int) -> list[PlannedFault]:
    """Return the faults of a run, in order. The same arguments give the same plan."""
    pick = random.Random(seed)  # noqa: S311 - repeatable, not secret
    faults = _faults(level, gatherers, seconds, pick)
    if not faults:
        return []
    in_turn = level in ("databases", "kills", "ground")
    if not in_turn:
        pick.shuffle(faults)
    if not in_turn and faults[-1][0] in _SLOW:
        # What takes long to heal must not fall into the cool-down.
        quick = next((place for place, fault in enumerate(faults) if fault[0] not in _SLOW), len(faults) - 1)
        faults[-1], faults[quick] = faults[quick], faults[-1]
    first, room = _first_s(seconds), _room_s(seconds)
    total = sum(_TAKES_S[kind] for kind, _, _ in faults)
    planned, passed = [], 0.0
    for kind, gatherer, lasts_s in faults:
        share = _TAKES_S[kind] / total * room
        at_s = first + passed + 0.25 * share * pick.random()
        planned.append(PlannedFault(round(at_s, 3), kind, gatherer, lasts_s))
        passed += share
    return planned


def _first_s(seconds: float) -> float:
    return _WARM_UP_S + 0.03 * seconds


def _room_s(seconds: float) -> float:
    return seconds - _first_s(seconds) - _COOL_DOWN_S - 0.07 * seconds


def _ground(gatherers: Sequence[str], seconds: float, pick: random.Random) -> list[tuple[str, str | None, float]]:
    """As many kinds as the run has room for, chosen by the seed."""
    chosen: set[str] = set()
    left = 1.05 * _room_s(seconds)
    for kind, _ in pick.sample(GROUND, len(GROUND)):
        if _TAKES_S[kind] <= left:
            chosen.add(kind)
            left -= _TAKES_S[kind]
    turn = pick.randrange(len(gatherers))
    faults: list[tuple[str, str | None, float]] = []
    for kind, is_of_gatherer in GROUND:
        if kind in chosen:
            faults.append((kind, gatherers[turn % len(gatherers)] if is_of_gatherer else None, 0.0))
            turn += is_of_gatherer
    return faults


def _faults(
    level: FaultLevel, gatherers: Sequence[str], seconds: float, pick: random.Random
) -> list[tuple[str, str | None, float]]:
    if level == "none":
        return []
    if level == "databases":
        return [("database_away", name, DATABASE_AWAY_S) for name in gatherers]
    if level == "kills":
        return [("kill", name, 0.0) for name in gatherers]
    if level == "ground":
        return _ground(gatherers, seconds, pick)
    faults: list[tuple[str, str | None, float]] = [("cut", name, 0.0) for name in gatherers]
    # Short enough for 95 of 100 messages to come all the same.
    faults.append(("exchange_pause", None, min(2.0, 0.02 * seconds)))
    faults.append(("rest_429", None, 0.0))
    faults.append(("kill", pick.choice(gatherers), 0.0))
    faults.append(("drop_frame", pick.choice(gatherers), 0.0))
    if level == "brutal":
        faults.append(("database_away", pick.choice(gatherers), min(DATABASE_AWAY_S, seconds / 4)))
        faults.append(("stall", pick.choice(gatherers), 5.0))
        faults.append(("unknown_frames", pick.choice(gatherers), 0.0))
        faults.append(("clock_skew", None, 3.0))
        faults += [("cut", name, 0.0) for name in gatherers]
    return faults
