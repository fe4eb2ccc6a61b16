"""What a part of a stream tells of its claims is what the whole stream tells."""

from __future__ import annotations

import random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.deduplicator.coverage.claims import claim_intervals
from kalshi_platform.deduplicator.coverage.streams.stream_window import find_edge_segments
from kalshi_platform.deduplicator.coverage.streams.time_regressions import (
    invalidated_between_segments,
    invalidated_intervals,
    measure_regressions,
)
from kalshi_platform.market.intervals import intersection
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


def test_regressions_are_measured_by_market_and_for_the_whole_stream() -> None:
    deltas = frame([(1, 100, "A"), (2, 90, "B"), (3, 95, "B"), (4, 80, "A"), (5, 300, "A"), (6, 70, "B")])
    found = measure_regressions(deltas, (75, 1_000))
    assert found.rows() == [("", 3, 20, 80), ("A", 1, 20, 80)]
    assert measure_regressions(deltas, (0, 1_000)).rows() == [("", 4, 230, 70), ("A", 1, 20, 80), ("B", 1, 25, 70)]
    assert invalidated_intervals(deltas, 15) == {0: [(70, 301)]}
    assert invalidated_intervals(deltas, 230) == {}


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
