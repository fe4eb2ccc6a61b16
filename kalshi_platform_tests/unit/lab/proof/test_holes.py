"""What is declared, what was lost, and what was declared without need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from kalshi_platform.lab.proof.comparison.holes import account, claimed_losses, compare_coverage, united
from kalshi_platform.lab.proof.comparison.lost_rows import Feeds, lost_of
from kalshi_platform.lab.proof.comparison.tables import DELTAS
from kalshi_platform.market.intervals import Interval

S = 1_000_000
INDICES = {"A": 0, "B": 0}


def published(*rows: tuple[int, str, int]) -> pl.DataFrame:
    """(n, ticker, time): deltas of one level."""
    return pl.DataFrame(
        [(n, us, ticker, "yes", 5_000, 100) for n, ticker, us in rows], schema=["n", *DELTAS.columns], orient="row"
    )


def seen(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop("n").group_by(DELTAS.columns).agg(pl.len().cast(pl.Int64).alias("seen"))


def served(*books: tuple[int, str]) -> pl.DataFrame:
    return pl.DataFrame(list(books), schema={"n": pl.Int64, "ticker": pl.String}, orient="row")


def missed_by(
    truth: pl.DataFrame,
    of_gatherer: pl.DataFrame,
    books: pl.DataFrame,
    broken_us: Sequence[int],
    indices: Mapping[str, int],
) -> dict[str, list[Interval]]:
    """What a gatherer missed, told in two parts of time, the later one first."""
    feeds, lost = Feeds(indices), []
    for part in (truth["n"] > 12, truth["n"] <= 12):
        feeds.add(truth.filter(part))
        lost += lost_of(truth.filter(part), of_gatherer, books)
    return feeds.lost_rows(lost, books, broken_us)


TRUTH = published(*((n, "A", n * S) for n in range(1, 41)))
"""A moves every second; B never does."""
LOST = TRUTH.filter(pl.col("n").is_between(11, 13))
KEPT = TRUTH.join(LOST, on="n", how="anti")
BOOKS = served((0, "A"), (0, "B"), (14, "A"), (14, "B"))
LIVES = {"A": (0, 40 * S), "B": (0, 40 * S)}


def test_a_loss_is_missed_from_the_message_before_it_to_the_one_after_the_next_book() -> None:
    missed = missed_by(TRUTH, seen(KEPT), BOOKS, [], INDICES)
    for ticker in ("A", "B"):
        assert [each for each in missed[ticker] if each[0] > 0] == [(10 * S, 15 * S + 1)]


def test_a_cut_is_missed_even_where_nothing_happened() -> None:
    missed = missed_by(TRUTH, seen(TRUTH), BOOKS, [int(12.5 * S)], INDICES)
    assert [each for each in missed["B"] if each[0] > 0] == [(12 * S, 15 * S + 1)]


def test_a_market_that_was_never_sent_is_missed_always() -> None:
    missed = missed_by(TRUTH, seen(TRUTH), served((0, "A")), [], INDICES)
    assert missed["B"][0][0] < 0
    assert missed["B"][0][1] > 40 * S


def test_declared_holes_hold_what_is_missing_and_the_margins_are_the_excess() -> None:
    claims = {"A": [(1, 10 * S), (15 * S + 1, 40 * S)], "B": [(1, 9 * S), (16 * S + 1, 39 * S)]}
    needed = missed_by(TRUTH, seen(KEPT), BOOKS, [], INDICES)
    found = account(claims, LIVES, [TRUTH], LOST, [needed], 2 * S)
    assert (found.true, found.undeclared, found.undeclared_rows, found.declared_count) == (1, 0, 0, 2)
    by_market = {each.ticker: each.excess_us for each in found.excesses}
    assert by_market == {"A": 0, "B": 2 * S}
    assert found == account(claims, LIVES, [TRUTH[:11], TRUTH[11:12], TRUTH[12:]], LOST, [needed], 2 * S)
    assert found.worst_excess_us == 2 * S


def test_a_row_missing_inside_a_claim_is_undeclared() -> None:
    claims = {"A": [(1, 12 * S), (15 * S, 40 * S)], "B": [(1, 40 * S)]}
    found = account(claims, LIVES, [TRUTH], LOST, [], 2 * S)
    assert (found.true, found.undeclared, found.undeclared_rows) == (1, 1, 1)


def test_a_hole_without_a_loss_is_excess_from_end_to_end() -> None:
    claims = {"A": [(1, 20 * S), (25 * S, 40 * S)], "B": [(1, 40 * S)]}
    needed = missed_by(TRUTH, seen(TRUTH), BOOKS, [], INDICES)
    found = account(claims, LIVES, [TRUTH], LOST.clear(), [needed], 2 * S)
    assert found.worst_excess_us == 5 * S


def test_what_another_gatherer_saw_was_not_needed() -> None:
    claims = {"A": [(1, 10 * S), (15 * S + 1, 40 * S)], "B": [(1, 40 * S)]}
    away = missed_by(TRUTH, seen(KEPT), BOOKS, [], INDICES)
    there = missed_by(TRUTH, seen(TRUTH), served((0, "A"), (0, "B")), [], INDICES)
    found = account(claims, LIVES, [TRUTH], LOST.clear(), [away, there], 2 * S)
    assert found.worst_excess_us == 5 * S + 1


def test_a_hole_with_two_losses_is_judged_by_its_worst_stretch() -> None:
    lost = TRUTH.filter(pl.col("n").is_in([11, 21]))
    kept = TRUTH.join(lost, on="n", how="anti")
    books = served((0, "A"), (11, "A"), (21, "A"))
    needed = missed_by(TRUTH, seen(kept), books, [], {"A": 0})
    claims = {"A": [(1, 9 * S), (24 * S, 40 * S)]}
    found = account(claims, {"A": (0, 40 * S)}, [TRUTH], lost, [needed], 2 * S)
    assert found.total_excess_us == 15 * S - 2 * (2 * S + 1)
    assert found.worst_excess_us == 8 * S - 1  # from 12 s to 20 s nothing was lost


def test_what_lies_before_and_after_a_loss_counts_together() -> None:
    needed = missed_by(TRUTH, seen(KEPT), BOOKS, [], INDICES)
    claims = {"A": [(1, 9 * S), (17 * S + 1, 40 * S)], "B": [(1, 40 * S)]}
    found = account(claims, LIVES, [TRUTH], LOST, [needed], 2 * S)
    assert found.worst_excess_us == S + 2 * S


def test_the_ends_of_a_market_are_left_out() -> None:
    claims = {"A": [(1_500_000, int(38.5 * S))], "B": [(1, 40 * S)]}
    found = account(claims, LIVES, [TRUTH], LOST.clear(), [], 2 * S)
    assert (found.declared_count, found.worst_excess_us) == (0, 0)


def test_claims_of_gatherers_unite() -> None:
    both = united({"g1": {"A": [(0, 5)]}, "g2": {"A": [(5, 9)], "B": [(1, 2)]}})
    assert both == {"A": [(0, 9)], "B": [(1, 2)]}


def test_coverage_is_compared_with_the_ledgers_both_ways() -> None:
    claimed = {"A": [(0, 10)], "B": [(5, 9)]}
    same = compare_coverage(claimed, claimed)
    assert (same.stated_us, same.beyond, same.short) == (14, (), ())
    found = compare_coverage({"A": [(0, 4), (6, 12)], "C": [(1, 2)]}, claimed)
    assert (found.beyond_us, found.beyond) == (3, ("A", "C"))
    assert (found.short_us, found.short) == (6, ("A", "B"))


def test_a_ledger_that_claims_what_it_does_not_have_is_found() -> None:
    lost = pl.DataFrame({"ticker": ["A", "A", "B"], "exchange_us": [5, 20, 5]})
    assert claimed_losses({"A": [(0, 10)], "B": [(6, 9)]}, lost) == (1, ("A",))
    assert claimed_losses({}, lost) == (0, ())
