"""What is judged of an operation by schedules, and when a schedule is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kalshi_platform.lab.proof.simulated.operation import Repair, Run, Tick, judge
from kalshi_platform.orchestration.in_process_ticks import cron_moments

AT = datetime(2026, 11, 20, 23, 5, tzinfo=UTC)
HOUR_22, HOUR_23 = "2026-11-20-22:00", "2026-11-20-23:00"
WELL = [
    Tick("all", AT, [Run(job, "r", True) for job in ("close_hours", "export_days", "register_tables", "retention")])
]


def test_an_operation_in_which_everything_was_done_and_repaired_has_no_problem() -> None:
    repair = Repair("a damaged file", HOUR_22, AT, "fill_missing_partitions", AT)
    failed = Tick("close_hours_schedule", AT, [Run("close_hours", "f", False, [HOUR_22])])
    assert judge([*WELL, failed], [repair]) == []


def test_failed_ticks_and_runs_and_what_nobody_repaired_are_named() -> None:
    ticks = [
        Tick("fill_missing_days", AT, error="KeyError: 'x'"),
        Tick("close_hours_schedule", AT, [Run("close_hours", "f", False, [HOUR_23])]),
    ]
    problems = judge(ticks, [Repair("a damaged file", HOUR_22, AT)])
    assert problems[0] == "fill_missing_days at 23:05 could not be evaluated: KeyError: 'x'"
    assert [each for each in problems if each.startswith("no run of")] == [
        f"no run of {job} succeeded" for job in ("close_hours", "export_days", "register_tables", "retention")
    ]
    assert f"a damaged file ({HOUR_22}) was not repaired" in problems
    assert f"run f of close_hours {HOUR_23} failed" in problems


def test_a_range_makes_the_partitions_between_its_ends() -> None:
    run = Run("close_hours", "r", True, [HOUR_22, "2026-11-21-01:00"])
    assert [run.makes(key) for key in ("2026-11-20-21:00", HOUR_22, HOUR_23, "2026-11-21-02:00")] == [
        False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("5 * * * *", [(0, 5), (1, 5), (2, 5)]),
        ("*/40 * * * *", [(0, 40), (1, 0), (1, 40), (2, 0)]),
        ("15 1 * * *", [(1, 15)]),
        ("0,10 2 * * *", [(2, 0), (2, 10)]),
    ],
)
def test_a_schedule_is_due_after_the_first_moment_and_at_the_last(cron: str, expected: list[tuple[int, int]]) -> None:
    midnight = datetime(2026, 11, 20, tzinfo=UTC)
    found = cron_moments(cron, midnight, midnight + timedelta(hours=2, minutes=10))
    assert [(moment.hour, moment.minute) for moment in found] == expected


def test_a_schedule_of_days_is_refused() -> None:
    with pytest.raises(ValueError, match="names days"):
        list(cron_moments("0 0 * * 1", AT, AT))
