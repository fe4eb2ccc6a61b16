"""What the live merge tells of itself."""

from __future__ import annotations

from typing import Any

import pytest

from kalshi_platform.deduplicator.live.metrics import live_health


def gatherer(**changes: Any) -> dict[str, Any]:
    return {"batch_no": 7, "rows": 0, "behind": False, "standing_s": None, "error": None, "lag_ms": 90, **changes}


def details(**changes: Any) -> dict[str, Any]:
    return {
        "error": None, "catalog": {"error": None}, "missed": [], "dead_letters_last_minute": 0,
        "gatherers": {"g1": gatherer(), "g2": gatherer()}, **changes,
    }  # fmt: skip


def test_a_merge_that_gets_everything_is_well() -> None:
    healthy, told = live_health("running", details())
    assert (healthy, told["health"], told["reasons"], told["troubles"]) == (True, "ok", [], [])
    assert live_health("waiting", {})[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"missed": ["g2"], "gatherers": {"g1": gatherer(), "g2": gatherer(error="no route")}},
         "gatherer g2 is not read: no route"),
        ({"gatherers": {"g1": gatherer(behind=True, standing_s=90.0)}},
         "gatherer g1: its cursor has stood for 90 s although there is more to read"),
        ({"dead_letters_last_minute": 12}, "12 rows of the last minute were put aside: see dead_letters of production"),
        ({"catalog": {"error": "away"}}, "the catalogs are not merged: away"),
    ],
)  # fmt: skip
def test_what_it_does_not_get_degrades(changes: dict[str, Any], said: str) -> None:
    healthy, told = live_health("running", details(**changes))
    assert (healthy, told["health"], told["troubles"]) == (True, "degraded", [said])


def test_who_reads_no_gatherer_does_not_merge() -> None:
    healthy, told = live_health("running", details(missed=["g1", "g2"]))
    assert (healthy, told["health"]) == (False, "not merging")
    assert told["reasons"] == ["no gatherer is read: g1, g2"]


def test_who_stands_still_shortly_while_there_is_more_is_well() -> None:
    assert live_health("running", details(gatherers={"g1": gatherer(behind=True, standing_s=9.0)}))[1]["health"] == "ok"
