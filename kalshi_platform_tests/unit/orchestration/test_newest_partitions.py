"""When hours and days are due, and which outcomes of the check are published."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.checks.newest_partitions import PartitionStatus, last_due
from kalshi_platform.orchestration.schedules.newest_partitions import PATIENCE, Seen, update

NOW = datetime(2026, 11, 23, 12, 50, tzinfo=UTC)
TRADES, QUOTES = keys.lake("raw/trades"), keys.lake("processed/quotes")


@pytest.mark.parametrize(
    ("now", "hours_end", "days_end"),
    [
        ("2026-11-23T12:44", "2026-11-23T11:00", "2026-11-23T00:00"),
        ("2026-11-23T12:45", "2026-11-23T12:00", "2026-11-23T00:00"),
        ("2026-11-23T03:59", "2026-11-23T03:00", "2026-11-22T00:00"),
        ("2026-11-23T04:00", "2026-11-23T03:00", "2026-11-23T00:00"),
    ],
)
def test_an_hour_is_due_after_45_minutes_and_a_day_after_four_hours(now: str, hours_end: str, days_end: str) -> None:
    due = last_due(datetime.fromisoformat(f"{now}+00:00"))
    assert due == (datetime.fromisoformat(f"{hours_end}+00:00"), datetime.fromisoformat(f"{days_end}+00:00"))


def test_an_outcome_is_published_once() -> None:
    seen = Seen()
    judged = [PartitionStatus(TRADES, "2026-11-23-11:00", is_made=True), PartitionStatus(QUOTES, None, is_made=True)]
    assert [(each.asset_key, each.passed) for each in update(seen, judged, "a", NOW)] == [
        (TRADES, True),
        (QUOTES, True),
    ]
    assert seen.settled == "a"
    kept = msgspec.json.decode(msgspec.json.encode(seen), type=Seen)
    assert update(kept, judged, "b", NOW + timedelta(hours=1)) == []
    assert kept.settled == "b"


def test_a_missing_partition_fails_after_a_while_and_passes_once_it_is_there() -> None:
    seen, late = Seen(), PartitionStatus(TRADES, "2026-11-23-11:00", is_made=False)
    assert update(seen, [late], "a", NOW) == []
    assert seen.settled == "", "it is looked at again"
    assert update(seen, [late], "a", NOW + PATIENCE - timedelta(seconds=1)) == []
    (failed,) = update(seen, [late], "a", NOW + PATIENCE)
    assert (failed.passed, failed.metadata["newest_due"].value) == (False, "2026-11-23-11:00")
    assert update(seen, [late], "a", NOW + 2 * PATIENCE) == []
    (passed,) = update(seen, [PartitionStatus(TRADES, "2026-11-23-11:00", is_made=True)], "a", NOW + 3 * PATIENCE)
    assert passed.passed
    assert seen.missing == {}
