"""What a part of a stream tells of its claims is what the whole stream tells."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.deduplicator.coverage.claims import claim_intervals
from kalshi_platform.deduplicator.coverage.streams.feed_scan import (
    REGRESSIONS,
    Feed,
    invalidated_between_segments,
    scan_frame,
)
from kalshi_platform.deduplicator.coverage.streams.stream_window import find_edge_segments
from kalshi_platform.market.intervals import Interval, intersection, union
from kalshi_platform_tests.unit.deduplicator.coverage.test_worlds import LONG, world_of, worlds
from kalshi_platform_tests.unit.deduplicator.coverage.truth import (
    MARGIN_US,
    Stream,
    World,
    book_subscriptions_of,
    feed_of,
    segments_of,
)


def commits(stream: Stream, deltas: pl.DataFrame, pick: random.Random) -> pl.DataFrame:
    """Segments with the times of their deltas, as a ledger has them."""
    rows = []
    for segment in segments_of(stream, pick).to_dicts():
        mine = deltas.filter(pl.col("seq").is_between(segment["seq_from"], segment["seq_to"]))["exchange_us"]
        rows.append({**segment, "low_us": mine.min(), "high_us": mine.max()})
    names = ("stream_id", "seq_from", "seq_to", "low_us", "high_us")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Int64), orient="row")


@settings(worlds, max_examples=5_000 if LONG else 100)
@given(world=world_of, seed=st.integers(0, 2**16))
def test_the_commits_at_the_edges_of_a_window_are_enough_for_its_claims(world: World, seed: int) -> None:
    pick = random.Random(seed)
    stream = pick.choice(world.streams)
    deltas = feed_of(stream, world).select("seq", "exchange_us", "ticker", "exchange_index")
    segments, members = commits(stream, deltas, pick), book_subscriptions_of(stream)
    low = pick.randint(90, 700)
    edges = (low, low + pick.choice((0, 5, 40, 200)))
    inner = (edges[0] - 5 * MARGIN_US, edges[1] + 5 * MARGIN_US)
    near = find_edge_segments(segments, inner, single=members["exchange_index"].n_unique() <= 1)
    read = pl.col("exchange_us").is_between(*inner, closed="left")
    for first, last in near.select("seq_from", "seq_to").iter_rows():
        read |= pl.col("seq").is_between(first, last)
    whole = claim_intervals(members, segments, deltas, MARGIN_US)
    part = claim_intervals(members, segments, deltas.filter(read), MARGIN_US)
    for ticker in world.index:
        expected = intersection(whole.get(ticker, []), [edges])
        assert intersection(part.get(ticker, []), [edges]) == expected


def frame(rows: list[tuple[int, int, str]]) -> pl.DataFrame:
    schema = {"seq": pl.Int64, "exchange_us": pl.Int64, "ticker": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(exchange_index=0)


def scan(deltas: pl.DataFrame, bound_us: int, within: Interval, places: tuple[int, ...] = (), at_once: int = 2) -> Feed:
    return scan_frame(deltas, np.array(places, dtype=np.int64), bound_us, within, at_once)


def test_regressions_are_measured_by_market_and_for_the_whole_stream() -> None:
    deltas = frame([(1, 100, "A"), (2, 90, "B"), (3, 95, "B"), (4, 80, "A"), (5, 300, "A"), (6, 70, "B")])
    found = scan(deltas, 15, (75, 1_000))
    assert found.regressions.rows() == [("", 3, 20, 80), ("A", 1, 20, 80)]
    whole = scan(deltas, 230, (0, 1_000))
    assert whole.regressions.rows() == [("", 4, 230, 70), ("A", 1, 20, 80), ("B", 1, 25, 70)]
    assert (found.invalid, whole.invalid) == ({0: [(70, 301)]}, {})
    assert (found.rows_within, whole.rows_within) == (5, 6)


row = st.tuples(st.integers(0, 60), st.sampled_from("ABC"))


@settings(worlds, max_examples=5_000 if LONG else 150)
@given(
    rows=st.lists(row, min_size=1, max_size=40),
    bound_us=st.integers(0, 20),
    at_once=st.integers(1, 12),
    places=st.lists(st.integers(0, 45), max_size=6),
    within=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_a_stream_scanned_block_by_block_tells_what_all_its_rows_tell(
    rows: list[tuple[int, str]], bound_us: int, at_once: int, places: list[int], within: Interval
) -> None:
    deltas = frame([(seq, us, ticker) for seq, (us, ticker) in enumerate(rows, start=1)]).with_columns(
        exchange_index=(pl.col("ticker") == "C").cast(pl.Int32)
    )
    found = scan(deltas.sample(fraction=1, shuffle=True, seed=1), bound_us, within, tuple(places), at_once)
    assert found.regressions.rows() == regressions_of(deltas, within).rows()
    assert found.invalid == invalid_of(deltas, bound_us)
    assert found.rows_within == deltas.filter(pl.col("exchange_us").is_between(*within, closed="left")).height
    for low in (0, *places):
        for high in places:
            between = pl.col("seq").is_between(low, high, closed="right")
            for index in (0, 1):
                wanted, scanned = (
                    each.filter(between & (pl.col("exchange_index") == index))["exchange_us"]
                    for each in (deltas, found.times)
                )
                assert (wanted.min(), wanted.max()) == (scanned.min(), scanned.max())


def regressions_of(deltas: pl.DataFrame, within: Interval) -> pl.DataFrame:
    """The same with all rows in memory."""
    back = pl.col("exchange_us").cum_max().over("ticker") - pl.col("exchange_us")
    every = pl.concat(
        [deltas.select("ticker", "exchange_us"), deltas.select(pl.lit("").alias("ticker"), "exchange_us")]
    )
    stepped = every.with_columns(_back=back).filter(
        (pl.col("_back") > 0) & pl.col("exchange_us").is_between(*within, closed="left")
    )
    found = stepped.group_by("ticker").agg(
        pl.len().cast(pl.Int64).alias("steps"),
        pl.col("_back").max().alias("largest_us"),
        pl.col("exchange_us").get(pl.col("_back").arg_max()),
    )
    return found.select(pl.col(name).cast(kind) for name, kind in REGRESSIONS.items()).sort("ticker")


def invalid_of(deltas: pl.DataFrame, bound_us: int) -> dict[int, list[Interval]]:
    """The same with all rows in memory."""
    stepped = deltas.with_columns(_peak=pl.col("exchange_us").cum_max().shift(1).over("exchange_index")).filter(
        pl.col("exchange_us") < pl.col("_peak") - bound_us
    )
    found: dict[int, list[Interval]] = {}
    for index, low, high in stepped.select("exchange_index", "exchange_us", "_peak").iter_rows():
        found.setdefault(index, []).append((low, high + 1))
    return {index: union(parts) for index, parts in found.items()}


def test_a_regression_between_commits_shows_in_their_times() -> None:
    schema = dict.fromkeys(("seq_from", "low_us", "high_us"), pl.Int64)
    rows = [(1, 100, 200), (5, None, None), (9, 190, 260), (12, 150, 155), (20, 400, 900)]
    segments = pl.DataFrame(rows, schema=schema, orient="row")
    assert invalidated_between_segments(segments, 20) == [(150, 261)]
    assert invalidated_between_segments(segments, 5) == [(150, 261)]
    assert invalidated_between_segments(segments, 110) == []


def test_a_quiet_market_loses_its_claim_with_the_feed_that_regresses() -> None:
    names = {"stream_id": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int32, "seq_from": pl.Int64,
             "seq_to": pl.Int64}  # fmt: skip
    members = pl.DataFrame([(1, "A", 0, 1, None), (1, "Q", 0, 2, None)], schema=names, orient="row")
    segments = pl.DataFrame([(1, 1, 9)], schema=["stream_id", "seq_from", "seq_to"], orient="row")
    deltas = frame([(3, 100, "A"), (4, 500, "A"), (5, 300, "A"), (6, 900, "A")])
    found = claim_intervals(members, segments, deltas, 10)
    assert found == {"A": [(111, 300), (501, 890)], "Q": [(111, 300), (501, 890)]}
