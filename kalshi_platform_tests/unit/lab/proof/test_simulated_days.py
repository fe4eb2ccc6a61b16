"""Simulated days and weeks: what is judged of them. Pure parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lab.proof.options import ProofOptions
from kalshi_platform.lab.proof.simulated.books import levels_of
from kalshi_platform.lab.proof.simulated.closing import hours_between
from kalshi_platform.lab.proof.simulated.options import DayOptions, WeeksOptions
from kalshi_platform.lab.proof.simulated.quotes import EMPTY, Quote, Row, known_spans, true_rows
from kalshi_platform.lab.proof.simulated.recording import planned_kinds
from kalshi_platform.lab.proof.simulated.weeks import judge
from kalshi_platform.plots.disk import MIB, disk
from kalshi_platform.plots.timeline import png

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
ONE, TWO = Quote(4_000, 100, None, None), Quote(4_100, 100, 9_000, 50)


def given(folder: Path) -> ProofOptions:
    return ProofOptions(seconds=1, gatherers=3, rate=1, markets=60, seed=1, data_dir=folder / "new", faults="day")


def test_hours_between_two_moments_are_those_that_are_over() -> None:
    found = hours_between(MIDNIGHT - timedelta(minutes=10), MIDNIGHT + timedelta(hours=2, minutes=59))
    assert found == [MIDNIGHT + timedelta(hours=number) for number in (-1, 0, 1)]


def test_quotes_are_compared_only_where_the_book_is_known() -> None:
    rows = [
        ("A", 10, "open", *ONE), ("A", 20, "change", *TWO), ("A", 30, "hole", *EMPTY), ("A", 50, "resync", *ONE),
        ("A", 60, "resync", *TWO),
    ]  # fmt: skip
    assert list(known_spans(iter(rows), 99)) == [
        (10, 30, [Row(10, ONE), Row(20, TWO)]),
        (50, 60, [Row(50, ONE)]),
        (60, 99, [Row(60, TWO)]),
    ]


def test_true_quotes_of_a_span_begin_with_the_one_in_force_and_end_before_its_end() -> None:
    true = [Row(0, EMPTY), Row(10, ONE), Row(20, TWO), Row(30, ONE)]
    assert true_rows(true, 15, 30) == [Row(15, ONE), Row(20, TWO)]
    assert true_rows(true, 20, 31) == [Row(20, TWO), Row(30, ONE)]
    assert true_rows(true, 5, 6) == [Row(5, EMPTY)]


def test_levels_without_contracts_are_no_levels() -> None:
    rows = pl.DataFrame({"side": ["yes", "no"], "price_e4": [4_000, 5_000], "count_e2": [0, 7]})
    assert levels_of(rows) == {("no", 5_000): 7}


def test_databases_that_grow_after_the_retention_are_named() -> None:
    growing = [(float(day), (20 + 5 * day) * MIB) for day in range(1, 15)]
    flat = [(float(day), min(day, 4) * 10 * MIB) for day in range(1, 15)]
    assert judge({"flat": flat}, 5.5) == []
    (problem,) = judge({"flat": flat, "production": growing}, 5.5)
    assert problem.startswith("production grows from")
    assert judge({"short": flat[:6]}, 5.5) == ["short: only 1 samples after the retention"]
    assert png(disk("Databases stay as large as they are", {"flat": flat}, 5.5)).startswith(b"\x89PNG")


def test_faults_of_a_day_strike_every_gatherer_and_are_those_of_the_seed() -> None:
    names = ("g1", "g2", "g3")
    kinds = planned_kinds(names, 1, few=False)
    assert kinds == planned_kinds(names, 1, few=False) != planned_kinds(names, 2, few=False)
    assert {name for kind, name in kinds if kind == "kill"} == set(names)
    assert sorted(kind for kind, _ in planned_kinds(names, 1, few=True)) == ["cut", "drop_frame", "kill"]


def test_options_that_make_no_day_or_weeks_are_refused(tmp_path: Path) -> None:
    day = DayOptions.of(given(tmp_path), hours=25, deltas=10, speed=0.5, samples=1)
    with pytest.raises(ConfigurationError) as refused:
        day.check()
    assert all(option in str(refused.value) for option in ("--hours", "--deltas", "--speed"))
    with pytest.raises(ConfigurationError, match="--days"):
        WeeksOptions.of(given(tmp_path), days=3, speed=2_000).check()
    good = DayOptions.of(given(tmp_path), hours=24, deltas=2_000_000, speed=300, samples=1_000)
    good.check()
    assert good.rate * 86_400 > 2_000_000
