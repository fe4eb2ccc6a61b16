"""Proofs by sums say what comparing whole books says."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.deduplicator.coverage.hour_end_checkpoints import derive_checkpoints
from kalshi_platform.deduplicator.coverage.multiset_hash import book_hashes, delta_hashes, row_fingerprints
from kalshi_platform.deduplicator.coverage.streams.check_snapshots import check_snapshots, hash_snapshots
from kalshi_platform.deduplicator.coverage.timeline import Covered, Timeline
from kalshi_platform.deduplicator.coverage.verification.check_books import (
    CONSISTENT,
    INCONSISTENT,
    UNDECIDED,
    Checkpoints,
    PolledBooks,
    check_checkpoints,
    check_polled_books,
)
from kalshi_platform.market.fold import Changes
from kalshi_platform.market.intervals import Interval

TICKERS = ["A", "B"]
END = 1_000
Row = tuple[int, int, str, int, int, int]


class Tape(NamedTuple):
    """Rows (market, µs, side, price, size, observer), ascending in time."""

    rows: list[Row]

    def book(self, market: int, until: int, extra: tuple[Row, ...] = ()) -> dict[tuple[str, int], int]:
        levels: dict[tuple[str, int], int] = {}
        for of, us, side, price, size, _ in (*self.rows, *extra):
            if of == market and us <= until:
                levels[side, price] = levels.get((side, price), 0) + size
        return {level: size for level, size in levels.items() if size}

    def frame(self) -> pl.DataFrame:
        names = ["market", "exchange_us", "side", "price_e4", "delta_e2", "observer"]
        kinds = dict(zip(names, (pl.Int64, pl.Int64, pl.String, pl.Int32, pl.Int64, pl.Int64), strict=True))
        return pl.DataFrame(self.rows, schema=kinds, orient="row").with_columns(
            occurrence=0, seq=pl.int_range(pl.len())
        )

    def timeline(self) -> Timeline:
        rows = self.frame()
        market, us, observer, seq = (rows[name].to_numpy() for name in ("market", "exchange_us", "observer", "seq"))
        return Timeline(0, market, us, delta_hashes(rows), row_fingerprints(rows), observer, seq)


rows_of = st.lists(
    st.tuples(
        st.integers(0, 1), st.integers(1, 40), st.sampled_from(("yes", "no")), st.sampled_from((100, 9_900)),
        st.sampled_from((-100, 100, 300)), st.integers(0, 1),
    ),
    max_size=40,
).map(lambda rows: Tape(sorted(rows, key=lambda row: row[1])))  # fmt: skip


def levels(books: list[dict[tuple[str, int], int]]) -> pl.DataFrame:
    columns: dict[str, list[list[int]]] = {}
    for book in books:
        for side in ("yes", "no"):
            mine = sorted((price, size) for (of, price), size in book.items() if of == side)
            columns.setdefault(f"{side}_price_e4", []).append([price for price, _ in mine])
            columns.setdefault(f"{side}_count_e2", []).append([size for _, size in mine])
    kinds = {"yes_price_e4": pl.List(pl.Int32), "yes_count_e2": pl.List(pl.Int64), "no_price_e4": pl.List(pl.Int32),
             "no_count_e2": pl.List(pl.Int64)}  # fmt: skip
    return pl.DataFrame({name: columns.get(name, []) for name in kinds}, schema=kinds)


def array(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def checkpoints_at(tape: Tape, places: list[tuple[int, int]]) -> Checkpoints:
    places = sorted(places)
    sums = book_hashes(levels([tape.book(*place) for place in places]))
    return Checkpoints(array([market for market, _ in places]), array([us for _, us in places]), sums)


def covered(intervals: list[Interval]) -> Covered:
    return Covered(TICKERS, {"A": intervals, "B": intervals})


places_of = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 41)), min_size=1, max_size=6)


@given(tape=rows_of, places=places_of, lost=st.integers(0, 39))
def test_checkpoints_fit_exactly_where_no_row_is_missing_between_them(
    tape: Tape, places: list[tuple[int, int]], lost: int
) -> None:
    checkpoints = checkpoints_at(tape, places)
    whole = check_checkpoints(tape.timeline(), covered([(0, END)]), checkpoints)
    assert len(whole.passed) == sum(1 for a, b in zip(sorted(places), sorted(places)[1:], strict=False) if a[0] == b[0])
    assert whole.passed.all()
    short = Tape(tape.rows[:lost] + tape.rows[lost + 1 :])
    found = check_checkpoints(short.timeline(), covered([(0, END)]), checkpoints)
    for first, second, passed in zip(found.first, found.second, found.passed, strict=True):
        market, low, high = int(checkpoints.market[first]), int(checkpoints.us[first]), int(checkpoints.us[second])
        missing = lost < len(tape.rows) and tape.rows[lost][0] == market and low < tape.rows[lost][1] <= high
        assert passed != missing
    assert len(check_checkpoints(short.timeline(), covered([]), checkpoints).first) == sum(
        1 for a, b in zip(sorted(places), sorted(places)[1:], strict=False) if a == b
    )


@given(tape=rows_of, place=st.tuples(st.integers(0, 1), st.integers(0, 20)), seed=st.integers(0, 2**16))
def test_polled_books_of_any_moment_of_their_window_are_consistent_and_others_are_not(
    tape: Tape, place: tuple[int, int], seed: int
) -> None:
    pick = random.Random(seed)
    market, since = place
    low = pick.randint(since, 40)
    high = pick.randint(low, 41)
    mine = [row for row in tape.rows if row[0] == market]
    shuffled = [
        row for us in range(42) for row in pick.sample([r for r in mine if r[1] == us], sum(r[1] == us for r in mine))
    ]
    inside = [
        number
        for number in range(len(shuffled) + 1)
        if sum(r[1] < low for r in mine) <= number <= sum(r[1] <= high for r in mine)
    ]
    true = Tape(shuffled[: pick.choice(inside)]).book(market, END)
    wrong = {**true, ("yes", 5_000): 7}
    polled = PolledBooks(array([market] * 2), array([low] * 2), array([high] * 2), book_hashes(levels([true, wrong])))
    checkpoints = checkpoints_at(tape, [place])
    # Rows of one time from one observer have the order in which they came, so here each row is a observer of its own.
    alone = Tape([(*row[:5], number) for number, row in enumerate(tape.rows)])
    found = check_polled_books(
        alone.timeline(), covered([(since + 1, high + 1)]), checkpoints, polled
    ).verdicts.tolist()
    # Books of the checkpoint's own moment are known only at its end.
    unknown = low == since or any(sum(r[1] == us for r in mine) > 10 for us in range(low, high + 1))
    assert found[0] == CONSISTENT or (unknown and found[0] == UNDECIDED)
    assert found[1] == (UNDECIDED if unknown else INCONSISTENT)
    hole = check_polled_books(alone.timeline(), covered([(since + 1, high)]), checkpoints, polled).verdicts.tolist()
    assert hole == [UNDECIDED, UNDECIDED]


def test_a_book_polled_around_its_checkpoint_can_be_consistent_and_never_inconsistent() -> None:
    tape = Tape([(0, 5, "yes", 100, 100, 0), (0, 20, "yes", 100, 100, 0)])
    books = levels([{("yes", 100): 200}, {("yes", 100): 100}, {("yes", 100): 1}])
    polled = PolledBooks(array([0] * 3), array([4] * 3), array([25] * 3), book_hashes(books))
    checkpoints = checkpoints_at(tape, [(0, 10)])
    found = check_polled_books(tape.timeline(), covered([(11, END)]), checkpoints, polled)
    assert found.verdicts.tolist() == [CONSISTENT, CONSISTENT, UNDECIDED]
    none = check_polled_books(tape.timeline(), covered([(0, END)]), checkpoints_at(tape, []), polled)
    assert none.verdicts.tolist() == [UNDECIDED] * 3


@given(
    tape=rows_of, places=places_of, at=st.integers(0, 41), holes=st.sampled_from(([(0, END)], [(0, 25)], [(15, END)]))
)
def test_derived_checkpoints_are_the_books_of_their_moment_where_all_is_covered(
    tape: Tape, places: list[tuple[int, int]], at: int, holes: list[Interval]
) -> None:
    places = sorted(set(places))
    checkpoints = levels([tape.book(*place) for place in places]).with_columns(
        market=pl.Series([market for market, _ in places]), us=pl.Series([us for _, us in places]),
        ticker=pl.Series([TICKERS[market] for market, _ in places]), stream_id=pl.lit(1), seq=pl.int_range(pl.len()),
    )  # fmt: skip
    rows = tape.frame().with_columns(side=(pl.col("side") == "no").cast(pl.Int64))
    changes = Changes(*(rows[name].to_numpy() for name in ("market", "side", "price_e4", "delta_e2")))
    found, wrong = derive_checkpoints(checkpoints, covered(holes), changes, rows["exchange_us"].to_numpy(), at)
    expected, impossible = {}, []
    for market, ticker in enumerate(TICKERS):
        before = [us for of, us in places if of == market and us <= at]
        if before and (before[-1] == at or (holes[0][0] <= before[-1] + 1 and at < holes[0][1])):
            book = tape.book(market, at)
            if any(size < 0 for size in book.values()):
                impossible.append(ticker)
            else:
                expected[ticker] = levels([book]).row(0)
    names = ("yes_price_e4", "yes_count_e2", "no_price_e4", "no_count_e2")
    assert {row["ticker"]: tuple(row[name] for name in names) for row in found.to_dicts()} == expected
    assert wrong == impossible


def test_snapshots_of_a_run_are_compared_by_number() -> None:
    books = [{("yes", 100): 500}, {("yes", 100): 600, ("no", 9_900): 5}, {("no", 9_900): 5}]
    snapshots = levels(books).with_columns(ticker=pl.lit("A"), seq=pl.Series([1, 5, 9]))
    deltas = pl.DataFrame(
        [(3, "A", "yes", 100, 100), (4, "A", "no", 9_900, 5), (4, "B", "yes", 100, 9), (7, "A", "yes", 100, -500)],
        schema={"seq": pl.Int64, "ticker": pl.String, "side": pl.String, "price_e4": pl.Int32, "delta_e2": pl.Int64},
        orient="row",
    )
    names = ["stream_id", "ticker", "seq", "next_seq", "low_us", "high_us"]
    pairs = pl.DataFrame(
        [(1, "A", 1, 5, 0, 9), (1, "A", 5, 9, 0, 9), (1, "A", 9, 12, 0, 9)], schema=names, orient="row"
    )
    found = check_snapshots(pairs, hash_snapshots(snapshots), [deltas[:2], deltas[2:]])
    assert found.select("seq", "passed").rows() == [(1, True), (5, False)]
    assert check_snapshots(pairs.clear(), hash_snapshots(snapshots), [deltas]).is_empty()
