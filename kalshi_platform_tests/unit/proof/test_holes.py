"""What is declared, what was lost, and what was declared without need."""

from __future__ import annotations

import polars as pl

from kalshi_platform.proof.holes import account, missed_by, united
from kalshi_platform.proof.tables import DELTAS

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
    found = account(claims, LIVES, TRUTH, LOST, [needed], 2 * S)
    assert (found.true, found.undeclared, found.undeclared_rows, found.declared_count) == (1, 0, 0, 2)
    by_market = {each.ticker: each.excess_us for each in found.excesses}
    assert by_market == {"A": 0, "B": 2 * S}
    assert found.worst_excess_us == 2 * S


def test_a_row_missing_inside_a_claim_is_undeclared() -> None:
    claims = {"A": [(1, 12 * S), (15 * S, 40 * S)], "B": [(1, 40 * S)]}
    found = account(claims, LIVES, TRUTH, LOST, [], 2 * S)
    assert (found.true, found.undeclared, found.undeclared_rows) == (1, 1, 1)


def test_a_hole_without_a_loss_is_excess_from_end_to_end() -> None:
    claims = {"A": [(1, 20 * S), (25 * S, 40 * S)], "B": [(1, 40 * S)]}
    needed = missed_by(TRUTH, seen(TRUTH), BOOKS, [], INDICES)
    found = account(claims, LIVES, TRUTH, LOST.clear(), [needed], 2 * S)
    assert found.worst_excess_us == 5 * S


def test_what_another_gatherer_saw_was_not_needed() -> None:
    claims = {"A": [(1, 10 * S), (15 * S + 1, 40 * S)], "B": [(1, 40 * S)]}
    away = missed_by(TRUTH, seen(KEPT), BOOKS, [], INDICES)
    there = missed_by(TRUTH, seen(TRUTH), served((0, "A"), (0, "B")), [], INDICES)
    found = account(claims, LIVES, TRUTH, LOST.clear(), [away, there], 2 * S)
    assert found.worst_excess_us == 5 * S + 1


def test_two_losses_in_one_hole_share_its_excess() -> None:
    lost = TRUTH.filter(pl.col("n").is_in([11, 21]))
    kept = TRUTH.join(lost, on="n", how="anti")
    books = served((0, "A"), (11, "A"), (21, "A"))
    needed = missed_by(TRUTH, seen(kept), books, [], {"A": 0})
    claims = {"A": [(1, 9 * S), (24 * S, 40 * S)]}
    found = account(claims, {"A": (0, 40 * S)}, TRUTH, lost, [needed], 2 * S)
    assert found.excesses[0].faults == 2
    assert found.worst_excess_us == (15 * S - 2 * (2 * S + 1)) // 2 == 5_499_999


def test_the_ends_of_a_market_are_left_out() -> None:
    claims = {"A": [(1_500_000, int(38.5 * S))], "B": [(1, 40 * S)]}
    found = account(claims, LIVES, TRUTH, LOST.clear(), [], 2 * S)
    assert (found.declared_count, found.worst_excess_us) == (0, 0)


def test_claims_of_gatherers_unite() -> None:
    both = united({"g1": {"A": [(0, 5)]}, "g2": {"A": [(5, 9)], "B": [(1, 2)]}})
    assert both == {"A": [(0, 9)], "B": [(1, 2)]}
