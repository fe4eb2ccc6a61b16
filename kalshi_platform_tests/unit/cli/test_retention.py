"""Lines in which `retention` says what went, and what stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kalshi_platform.cli.retention import report_lines
from kalshi_platform.lake.retention.report import Cleared, Outcome, RetentionReport

HOUR = datetime(2026, 11, 23, 4, tzinfo=UTC)


def deltas(offset: int, refused: str | None = None) -> Outcome:
    low = HOUR + timedelta(hours=offset)
    return Outcome("g1", "orderbook_deltas", low, low + timedelta(hours=1), 1_000, 64_000, refused)


def test_partitions_of_a_table_are_one_line_and_so_are_those_of_a_reason() -> None:
    report = RetentionReport(
        dry_run=False,
        partitions=(deltas(0), deltas(1, "is open"), deltas(2), deltas(3, "is open"), deltas(4, "is stale")),
        cleared=(Cleared("g1", "batches", 12), Cleared("g1", "sessions", 0)),
    )
    assert report_lines(report) == [
        "g1 orderbook_deltas: 2026-11-23T04 to 2026-11-23T07, 2 partitions, 2,000 rows, 128,000 bytes went",
        "g1 orderbook_deltas: 2026-11-23T05 to 2026-11-23T08, 2 partitions, 2,000 rows, 128,000 bytes stays: is open",
        "g1 orderbook_deltas: 2026-11-23T08 to 2026-11-23T09, 1 partition, 1,000 rows, 64,000 bytes stays: is stale",
        "g1 batches: 12 lines went",
    ]


def test_a_dry_run_says_what_would_go_and_nothing_old_is_said() -> None:
    assert report_lines(RetentionReport(True, (deltas(0),)))[0].endswith("64,000 bytes would go")
    assert report_lines(RetentionReport(True)) == ["nothing would go: nothing is old enough"]
