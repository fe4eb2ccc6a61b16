"""Books at the end, the verdict, and what is said of it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import polars as pl
import pytest

from kalshi_platform.lab.proof import report
from kalshi_platform.lab.proof.comparison.books import BooksAtEnd, Fold, books_at_end
from kalshi_platform.lab.proof.comparison.checkpoints import CheckpointsFound
from kalshi_platform.lab.proof.comparison.compare import Difference
from kalshi_platform.lab.proof.comparison.fault_windows import Unexplained
from kalshi_platform.lab.proof.comparison.holes import CoverageFound, HoleAccount, OverDeclared
from kalshi_platform.lab.proof.comparison.tables import DELTAS
from kalshi_platform.lab.proof.examine import Aside, Findings, TableFinding
from kalshi_platform.lab.proof.kinds import InjectedFault
from kalshi_platform.lab.proof.verdict import RunRecord, failures
from kalshi_platform.plots.timeline import Mark, png, timeline

EMPTY = pl.DataFrame(schema=dict.fromkeys(DELTAS.columns, pl.Int64))
ONE = EMPTY.vstack(pl.DataFrame([[0]] * len(DELTAS.columns), schema=EMPTY.schema))
AT = datetime(2026, 11, 23, tzinfo=UTC)

AWAY = InjectedFault("database_away", "g1", AT, 5, effect="server away for 30 s")
BROKEN = InjectedFault("failed_over", "g1", AT, 5, effect="a replica took over", broken=["nothing is claimed"])
KILLED = InjectedFault("server_killed", "g1", AT, 5, effect="postmaster killed")


def difference(missing: int = 0, doubled: int = 0, wrong: int = 0, found: int = 10) -> Difference:
    return Difference(10, found, *(pl.concat([EMPTY, *[ONE] * count]) for count in (missing, doubled, wrong)))


def findings(**changes: Any) -> Findings:
    production = changes.pop("production", difference())
    lake = changes.pop("lake", production)
    values: dict[str, Any] = {
        "tables": [TableFinding(changes.pop("table", DELTAS.name), changes.pop("truth", 10), production, lake)],
        "coverage": CoverageFound(9, 0, 0, (), ()),
        "checkpoints": CheckpointsFound(3),
        "lake_checkpoints": CheckpointsFound(3),
        "holes": HoleAccount(0, 0, 0, 0, []),
        "books": BooksAtEnd(1, (), ()),
        "lake_books": BooksAtEnd(1, (), ()),
        "merge_lost": 0,
        "undeclared_messages": 0,
        "recorded_spans": {"g1": [(0, 10)]},
    }
    return Findings(**(values | changes))


def ran(**changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "level": "standard",
        "gatherers": ("g1", "g2"),
        "rate": 10.0,
        "seconds": 10.0,
        "run": (0, 10_000_000),
        "published": 100,
        "faults": (InjectedFault("cut", "g1", AT, 5, effect="2 connections cut"),),
    }
    return RunRecord(**(values | changes))


def test_a_clean_run_is_proven() -> None:
    assert failures(ran(), findings()) == []
    assert "PROVEN: 2 gatherers, 1 faults" in report.as_text(ran(), findings(), [])


@pytest.mark.parametrize(
    ("run", "found", "word"),
    [
        ({}, {"production": difference(missing=1)}, "missing"),
        ({}, {"production": difference(doubled=1)}, "doubled"),
        ({}, {"production": difference(wrong=1)}, "wrong"),
        ({}, {"lake": difference(missing=1)}, "missing"),
        ({}, {"lake": difference(found=9)}, "the lake has 9"),
        ({}, {"holes": HoleAccount(1, 1, 1, 0, [])}, "claims"),
        ({}, {"holes": HoleAccount(0, 0, 0, 1, [OverDeclared("A", (0, 9), 9_000_000, 2_250_001)])}, "without need"),
        ({}, {"coverage": CoverageFound(9, 1, 0, ("A",), ())}, "no ledger claims: A"),
        ({}, {"coverage": CoverageFound(9, 0, 1, (), ("A",))}, "leaves open"),
        (
            {},
            {"checkpoints": CheckpointsFound(3, (("A", 5_000_000),))},
            "1 of 3 checkpoints of production are wrong, the first of A",
        ),
        ({}, {"lake_checkpoints": CheckpointsFound(3, (("A", 5_000_000),))}, "checkpoints of the lake are wrong"),
        ({}, {"lake_checkpoints": CheckpointsFound(2)}, "the lake has 2 checkpoints"),
        ({}, {"merge_lost": 1}, "not in production"),
        ({}, {"undeclared_messages": 1}, "connection lived"),
        ({}, {"books": BooksAtEnd(0, ("A",), ())}, "books at the end are wrong"),
        ({}, {"lake_books": BooksAtEnd(0, ("A",), ())}, "books at the end are wrong in the lake"),
        ({}, {"books": BooksAtEnd(0, (), ("A",))}, "cannot be told"),
        ({"gatherers": ("g1",)}, {"books": BooksAtEnd(1, (), ("A",), ("A",))}, "cannot be told"),
        ({"gatherers": ("g1",)}, {"books": BooksAtEnd(0, (), ("A",))}, "not one book"),
        ({"gatherers": ("g1",)}, {"unexplained": [Unexplained("A", (1, 2))]}, "no fault"),
        ({}, {"unexplained_of": {"g1": [], "g2": [Unexplained("A", (1, 2))]}}, "g2 itself lost"),
        ({"counted": {"delta": 9}}, {"ledger": {"delta": 8}}, "ledger has 8"),
        ({}, {"table": "trades", "truth": 0}, "no trades"),
        ({"published": 94}, {}, "too slow"),
        ({}, {"false_claims": {"g1": (0, ()), "g2": (3, ("A",))}}, "the ledger of g2 claims 3 deltas"),
        ({}, {"told": CheckpointsFound(9, (("A", 5_000_000),))}, "1 of 9 books that production calls proven are wrong"),
        ({"faults": (BROKEN,)}, {}, "fault failed over g1: nothing is claimed"),
        ({"level": "ground", "faults": (KILLED,)}, {}, "fault server killed g1: alarm"),
        ({"left_in_journals": 1}, {}, "journals"),
        ({"silent": ("g2",)}, {}, "g2 did not record again"),
        ({"faults": (InjectedFault("cut", "g1", AT, 5),)}, {}, "no effect"),
        ({"gatherers": ("g1",), "level": "none", "faults": ()}, {"production": difference(missing=1)}, "missing"),
        ({"gatherers": ("g1",), "faults": (AWAY,)}, {"production": difference(missing=1)}, "missing"),
        ({"gatherers": ("g1",)}, {"production": difference(missing=1), "table": "markets"}, "missing"),
    ],
)
def test_each_flaw_is_named(run: dict[str, Any], found: dict[str, Any], word: str) -> None:
    said = failures(ran(**run), findings(**found))
    assert len(said) >= 1
    assert word in said[0]
    assert report.as_text(ran(**run), findings(**found), said).splitlines()[-1].endswith(said[-1])


def test_the_lake_may_have_more_than_production_where_partitions_were_dropped() -> None:
    more = findings(lake=difference(found=12), lake_checkpoints=CheckpointsFound(4))
    assert len(failures(ran(), more)) == 2
    assert failures(ran(aside=Aside(past=(0, 9), dropped=(0, 9))), more) == []


def test_one_gatherer_may_lose_what_its_ledger_leaves_open() -> None:
    alone = ran(gatherers=("g1",))
    lost = findings(
        production=difference(missing=3),
        holes=HoleAccount(
            1, 0, 0, 2, [OverDeclared("A", (0, 9), 4_000_000, 2_250_000), OverDeclared("B", (0, 9), 0, 0)]
        ),
    )
    assert failures(alone, lost) == []
    assert "PROVEN: one gatherer, 1 faults: 3 rows could not be recorded" in report.verdict_line(alone, lost, [])


def test_the_json_has_what_machines_ask_for() -> None:
    found = findings(
        production=difference(missing=1, wrong=2), lake=difference(missing=2), holes=HoleAccount(3, 1, 5, 4, [])
    )
    content = report.as_json(ran(), found, ["why"])
    assert (content["missing"], content["doubled"], content["wrong"], content["published"]) == (2, 0, 2, 100)
    assert content["tables"][DELTAS.name] == {
        "truth": 10, "production": 10, "lake": 10, "missing": 2, "doubled": 0, "wrong": 2,
    }  # fmt: skip
    holes = content["holes"]
    assert (holes["true"], holes["declared"], holes["undeclared"], holes["excess_hole_s"]) == (3, 4, 1, 0)
    assert content["faults"] == [
        {
            "kind": "cut",
            "gatherer": "g1",
            "at": "2026-11-23T00:00:00.000Z",
            "effect": "2 connections cut",
            "broken": [],
        }
    ]


LAST = pl.DataFrame(
    {"ticker": ["A"], "side": ["yes"], "price_e4": [5_000], "count_e2": [300]},
    schema_overrides={"price_e4": pl.Int64, "count_e2": pl.Int64},
)
CHECKPOINTS = pl.DataFrame(
    {
        "checkpoint_ts": pl.Series([1_000, 500], dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
        "ticker": ["A", "A"],
        "yes_price_e4": [[5_000, 6_000], [1]],
        "yes_count_e2": [[100, 50], [1]],
        "no_price_e4": [[], []],
        "no_count_e2": [[], []],
    },
    schema_overrides={"no_price_e4": pl.List(pl.Int64), "no_count_e2": pl.List(pl.Int64)},
)
LATER = [(1_000, "A", "yes", 5_000, 7), (1_500, "A", "yes", 6_000, -50), (2_000, "A", "yes", 5_000, 200)]
WHOLE = MappingProxyType({"A": [(600, 3_000)]})


def folded(
    rows: list[tuple[Any, ...]], claims: Any = WHOLE, checkpoints: pl.DataFrame = CHECKPOINTS, near: Any = ()
) -> BooksAtEnd:
    frame = pl.DataFrame(rows, schema=list(DELTAS.columns), orient="row")
    fold = Fold(checkpoints)
    for row in range(frame.height):
        fold.add(frame[row])
    return books_at_end(["A"], LAST, fold, claims, {"A": 2_000}, near)


def test_a_book_is_the_latest_checkpoint_and_what_came_after_it() -> None:
    assert folded(LATER) == BooksAtEnd(1, (), ())


def test_a_missing_delta_makes_a_claimed_book_wrong_and_an_unclaimed_one_open() -> None:
    assert folded(LATER[:2]) == BooksAtEnd(0, ("A",), ())
    assert folded(LATER[:2], {"A": [(600, 1_200)]}) == BooksAtEnd(0, (), ("A",), ("A",))
    assert folded(LATER, checkpoints=CHECKPOINTS.clear()) == BooksAtEnd(0, (), ("A",), ("A",))


@pytest.mark.parametrize(
    ("near", "is_explained"), [((1_100, 1_300), True), ((700, 1_100), False), ((2_100, 9_999), False)]
)
def test_an_open_book_is_explained_by_a_fault_in_its_hole(near: tuple[int, int], is_explained: bool) -> None:
    found = folded(LATER[:2], {"A": [(600, 1_200)]}, near=[near])
    assert found == BooksAtEnd(0, (), ("A",), () if is_explained else ("A",))


def test_the_timeline_draws_gaps_as_gaps() -> None:
    recorded = {"g1": [(0, 4_000_000), (6_000_000, 9_000_000)], "g2": []}
    marks = [Mark(4_000_000, "cut", "g1"), Mark(7_000_000, "exchange pause", None)]
    figure = timeline("done", recorded, [(4_500_000, 5_000_000)], marks, (0, 9_000_000))
    axes = figure.axes[0]
    bars = [len(each.get_paths()) for each in axes.collections if each.get_label() == "_" or each.get_paths()]
    assert bars[0] == 2
    assert axes.get_title(loc="left") == "done"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["g1", "g2", "together"]
    assert png(figure).startswith(b"\x89PNG")
