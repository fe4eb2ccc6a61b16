"""Health of the live merge, judged from its status."""

from __future__ import annotations

import msgspec
import pytest

from kalshi_platform.deduplicator.live.status import (
    CatalogMergeStatus,
    DeduplicatorStatus,
    LastPass,
    SourceStatus,
    TableCounts,
    merge_metrics,
    with_health,
)
from kalshi_platform_tests.fixtures.clocks import FakeClock


def status(**changes: object) -> DeduplicatorStatus:
    """Return the status of a merge that is well."""
    well = DeduplicatorStatus(
        state="running",
        catalog=CatalogMergeStatus(),
        gatherers={"g1": SourceStatus(batch_no=7, lag_ms=90), "g2": SourceStatus(batch_no=7, lag_ms=90)},
    )
    return msgspec.structs.replace(well, **changes)


def test_a_merge_that_gets_everything_is_well() -> None:
    found = with_health(status())
    assert (found.health, found.reasons, found.troubles) == ("ok", [], [])
    assert with_health(DeduplicatorStatus(state="waiting")).health == "ok"


@pytest.mark.parametrize(
    ("changed", "trouble"),
    [
        (status(missed=["g2"], gatherers={"g1": SourceStatus(), "g2": SourceStatus(error="no route")}),
         "gatherer g2 is not read: no route"),
        (status(gatherers={"g1": SourceStatus(behind=True, standing_s=90.0)}),
         "gatherer g1: its cursor has stood for 90 s although there is more to read"),
        (status(dead_letters_last_minute=12),
         "12 rows of the last minute were put aside: see dead_letters of production"),
        (status(catalog=CatalogMergeStatus(error="away")), "the catalogs are not merged: away"),
    ],
)  # fmt: skip
def test_what_it_does_not_get_degrades(changed: DeduplicatorStatus, trouble: str) -> None:
    found = with_health(changed)
    assert (found.health, found.reasons, found.troubles) == ("degraded", [], [trouble])


def test_without_any_gatherer_it_does_not_merge() -> None:
    found = with_health(status(missed=["g1", "g2"]))
    assert (found.health, found.reasons) == ("not merging", ["no gatherer is read: g1, g2"])


def test_a_production_that_is_away_is_named_with_its_error() -> None:
    found = with_health(status(state="production away", error="no route"))
    assert (found.health, found.reasons) == ("not merging", ["production away: no route"])


def test_a_cursor_that_stands_shortly_while_there_is_more_is_well() -> None:
    assert with_health(status(gatherers={"g1": SourceStatus(behind=True, standing_s=9.0)})).health == "ok"


def test_metrics_of_the_last_pass_appear_with_it() -> None:
    before = {family.name for family in merge_metrics(status(tables={"trades": TableCounts(read=3, inserted=2)}))}
    assert before == {
        f"kalshi_deduplicator_{name}" for name in ("state", "alerts_waiting", "passes", "rows_read", "rows_inserted")
    }
    last = LastPass(at=FakeClock().now(), seconds=0.5)
    found = {family.name: family.samples for family in merge_metrics(status(last_pass=last))}
    lags = [(each.labels, each.value) for each in found["kalshi_deduplicator_commit_to_merge_seconds"]]
    assert lags == [({"gatherer": "g1"}, 0.09), ({"gatherer": "g2"}, 0.09)]
    assert [each.value for each in found["kalshi_deduplicator_last_pass_duration_seconds"]] == [0.5]
