"""One gatherer may lose what a fault took from it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from kalshi_platform.lab.proof.comparison.books import Fold, books_at_end
from kalshi_platform.lab.proof.comparison.checkpoints import CheckpointsFound
from kalshi_platform.lab.proof.comparison.compare import compare
from kalshi_platform.lab.proof.comparison.fault_windows import (
    AFTER_US,
    BEFORE_US,
    BORN_US,
    fault_windows,
    is_born_too_late,
    unexplained,
)
from kalshi_platform.lab.proof.comparison.holes import account, compare_coverage
from kalshi_platform.lab.proof.comparison.lost_rows import Feeds, lost_by_all, lost_of
from kalshi_platform.lab.proof.comparison.tables import DELTAS, TRADES
from kalshi_platform.lab.proof.examine import Findings, TableFinding, undeclared_messages
from kalshi_platform.lab.proof.kinds import InjectedFault
from kalshi_platform.lab.proof.verdict import RunRecord, failures

S = 1_000_000
MARGIN = 2_500_000
RUN = (0, 60 * S)
LIVES = {"A": RUN, "B": RUN}
TRUTH = pl.DataFrame(
    [(2 * k + i, k * S, ticker, "yes", 5_000, 100) for k in range(1, 61) for i, ticker in enumerate("AB")],
    schema=["n", *DELTAS.columns],
    orient="row",
)
"""Two markets that move every second."""
ALL = TRUTH.drop("n")
TRADE_ROWS = pl.DataFrame(
    [(k * S, "A", f"t{k}", 5_000, 5_000, 100, "yes", False) for k in range(1, 50)],
    schema=list(TRADES.columns),
    orient="row",
)
CUT = InjectedFault("cut", "g1", datetime(2026, 11, 23, tzinfo=UTC), 20 * S, 21 * S, "2 connections cut")
CHECKPOINTS = pl.DataFrame(
    {
        "checkpoint_ts": pl.Series([50 * S] * 2, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
        "ticker": ["A", "B"],
        "yes_price_e4": [[5_000]] * 2,
        "yes_count_e2": [[5_000]] * 2,
        "no_price_e4": [[], []],
        "no_count_e2": [[], []],
    },
    schema_overrides={"no_price_e4": pl.List(pl.Int64), "no_count_e2": pl.List(pl.Int64)},
)


def said(
    kept: pl.DataFrame,
    served: Sequence[tuple[int, str]],
    claims: dict[str, list[tuple[int, int]]],
    kept_trades: pl.DataFrame = TRADE_ROWS,
    lake: pl.DataFrame | None = None,
) -> list[str]:
    """What is objected to a run of one gatherer, whose line was cut at 20 s."""
    near = fault_windows([CUT])
    deltas = compare(DELTAS, TRUTH.with_columns(required=True), kept)
    exported = deltas if lake is None else compare(DELTAS, TRUTH.with_columns(required=True), lake)
    trades_truth = TRADE_ROWS.with_columns(required=True, at_us="exchange_us")
    trades = compare(TRADES, trades_truth, kept_trades)
    tables = [
        TableFinding(DELTAS.name, TRUTH.height, deltas, exported),
        TableFinding(TRADES.name, TRADE_ROWS.height, trades, trades),
    ]
    seen = kept.group_by(DELTAS.columns).agg(pl.len().cast(pl.Int64).alias("seen"))
    books = pl.DataFrame(list(served), schema={"n": pl.Int64, "ticker": pl.String}, orient="row")
    feeds = Feeds({"A": 0, "B": 0})
    feeds.add(TRUTH)
    needed = [feeds.lost_rows(lost_of(TRUTH, seen, books), books, [CUT.at_us])]
    last = TRUTH.group_by("ticker", "side", "price_e4").agg(count_e2=pl.col("delta_e2").sum())
    checkpoints = CHECKPOINTS.filter(pl.col("ticker").is_in(kept["ticker"].unique().implode()))
    fold = Fold(checkpoints)
    fold.add(kept)
    at_end = books_at_end(["A", "B"], last, fold, claims, dict.fromkeys("AB", 60 * S), near)
    found = Findings(
        tables=tables,
        coverage=compare_coverage(claims, claims),
        checkpoints=CheckpointsFound(2),
        lake_checkpoints=CheckpointsFound(2),
        holes=account(claims, LIVES, [TRUTH], deltas.missing, needed, MARGIN),
        books=at_end,
        lake_books=at_end,
        merge_lost=0,
        undeclared_messages=undeclared_messages(tables, [{TRADES.name: []}], near),
        recorded_spans={},
        unexplained=unexplained(LIVES, 0, MARGIN, deltas.missing, lost_by_all(needed), near),
    )
    return failures(RunRecord("standard", ("g1",), 2.0, 60.0, RUN, 120, (CUT,)), found)


def without_seconds(low: int, high: int) -> pl.DataFrame:
    return ALL.filter(~pl.col("exchange_us").is_between(low * S, high * S))


HONEST = without_seconds(20, 21)
HONEST_SERVED = [(0, "A"), (0, "B"), (43, "A"), (43, "B")]
HONEST_CLAIMS = {ticker: [(1, 19 * S), (22 * S + 1, 61 * S)] for ticker in "AB"}


def test_what_the_cut_took_is_excused() -> None:
    assert said(HONEST, HONEST_SERVED, HONEST_CLAIMS) == []
    assert said(HONEST, HONEST_SERVED, HONEST_CLAIMS, TRADE_ROWS.filter(pl.col("exchange_us") != 21 * S)) == []


def test_a_market_that_was_never_subscribed_is_not() -> None:
    kept = ALL.filter(pl.col("ticker") == "A")
    against = said(kept, [(0, "A"), (43, "A")], {"A": [(1, 19 * S), (22 * S, 61 * S)]})
    assert any("lost rows of 1 markets" in each and each.endswith("B") for each in against)


def test_a_market_that_is_not_subscribed_again_is_not() -> None:
    kept = ALL.filter((pl.col("ticker") == "A") | (pl.col("exchange_us") < 20 * S))
    against = said(kept, [(0, "A"), (0, "B"), (43, "A")], {"A": [(1, 61 * S)], "B": [(1, 19 * S)]})
    # Whatever else was on that line could have been lost as well, so A is doubted too.
    assert any(each.startswith("lost rows of 2 markets") and each.endswith("A, B") for each in against)


def test_a_loss_with_no_fault_near_is_not_however_honest_the_ledger() -> None:
    claims = {ticker: [(1, 39 * S), (56 * S, 61 * S)] for ticker in "AB"}
    against = said(without_seconds(40, 54), [(0, "A"), (0, "B"), (110, "A"), (110, "B")], claims)
    assert any("lost rows of 2 markets between 40.0 s and 54.0 s" in each for each in against)


def test_nothing_recorded_at_all_is_not_a_record() -> None:
    against = said(ALL.clear(), [(0, "A"), (0, "B")], {}, TRADE_ROWS.clear())
    assert any("lost rows of 2 markets" in each for each in against)
    assert any("not one book at the end is right in production" in each for each in against)
    assert any("trades, tickers or lifecycle events are missing" in each for each in against)


def test_a_lost_trade_with_no_fault_near_is_named() -> None:
    against = said(HONEST, HONEST_SERVED, HONEST_CLAIMS, TRADE_ROWS.filter(pl.col("exchange_us") != 40 * S))
    assert len(against) == 1
    assert against[0].startswith("1 trades")


@pytest.mark.parametrize("changed", ["exchange_us", "price_e4", "delta_e2"])
def test_a_row_changed_in_the_lake_alone_is_named(changed: str) -> None:
    row = (pl.col("ticker") == "A") & (pl.col("exchange_us") == 30 * S)
    lake = HONEST.with_columns(pl.when(row).then(pl.col(changed) + 7).otherwise(pl.col(changed)).alias(changed))
    assert said(HONEST, HONEST_SERVED, HONEST_CLAIMS, lake=lake) == ["orderbook_deltas: 1 rows are wrong"]


def test_windows_are_those_of_faults_that_can_lose_something() -> None:
    def fault(kind: str, at_s: int) -> InjectedFault:
        return InjectedFault(kind, None, CUT.at, at_s * S, (at_s + 1) * S)

    faults = [fault("kill", 50), fault("exchange_pause", 20), fault("rest_429", 30), fault("database_away", 35)]
    assert fault_windows(faults) == [(50 * S - BEFORE_US, 51 * S + AFTER_US)]
    assert fault_windows([]) == []


def test_what_one_gatherer_lost_is_excused_by_its_own_faults_only() -> None:
    own = InjectedFault("kill", "g1", CUT.at, 10 * S, 11 * S)
    other = InjectedFault("kill", "g2", CUT.at, 40 * S, 41 * S)
    everybody = InjectedFault("unknown_frames", None, CUT.at, 70 * S, 71 * S)
    near = fault_windows([own, other, everybody], "g1")
    assert [low for low, _ in near] == [10 * S - BEFORE_US, 70 * S - BEFORE_US]
    lost = unexplained(LIVES, 0, MARGIN, ALL.clear(), {"A": [(40 * S, 42 * S)]}, near)
    assert [each.ticker for each in lost] == ["A"]


@pytest.mark.parametrize(
    ("missed", "is_excused"),
    [
        ([], True),
        ([(-99, 30 * S + BORN_US)], True),
        ([(-99, 30 * S + BORN_US + 1)], False),
        ([(-99, 2**62)], False),
    ],
)
def test_a_market_born_late_has_some_time_to_be_subscribed(missed: list[Any], is_excused: bool) -> None:
    found = unexplained({"C": (30 * S, 60 * S)}, 0, MARGIN, ALL.clear(), {"C": missed}, [])
    assert (not found) == is_excused


def test_a_market_that_stood_still_and_was_never_sent_is_named() -> None:
    assert [each.ticker for each in unexplained(LIVES, 0, MARGIN, ALL.clear(), {"B": [(-99, 2**62)]}, [])] == ["B"]


@pytest.mark.parametrize(
    ("life", "is_late"),
    [((0, 60 * S), False), ((0, 5 * S), False), ((30 * S, 60 * S), False), ((55 * S, 60 * S), True), (None, False)],
)
def test_only_a_market_that_opened_shortly_before_the_end_of_the_run_is_born_too_late(
    life: tuple[int, int] | None, is_late: bool
) -> None:
    assert is_born_too_late(life, 0) is is_late
