"""Claims of streams in random worlds: what is claimed is in the union, whole; and much is claimed."""

from __future__ import annotations

import random
from collections import Counter

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.deduplicator.coverage.claims import claim_intervals
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import join_continued
from kalshi_platform.market.intervals import covers, length, union
from kalshi_platform_tests.unit.deduplicator.coverage.test_worlds import contents, merge, micros, world_of, worlds
from kalshi_platform_tests.unit.deduplicator.coverage.truth import (
    MARGIN_US,
    Stream,
    World,
    book_subscriptions_of,
    feed_of,
    segments_of,
)

NUMBERS = {"stream_id": pl.Int64, "seq_from": pl.Int64, "seq_to": pl.Int64}
MEMBERS = {
    "stream_id": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int32, "seq_from": pl.Int64, "seq_to": pl.Int64,
}  # fmt: skip
DELTAS = {"seq": pl.Int64, "exchange_us": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int32}


def claims_of(stream: Stream, world: World, pick: random.Random) -> dict[str, list[tuple[int, int]]]:
    deltas = feed_of(stream, world).select("seq", "exchange_us", "ticker", "exchange_index")
    return claim_intervals(book_subscriptions_of(stream), segments_of(stream, pick), deltas, MARGIN_US)


@worlds
@given(world=world_of, seed=st.integers(0, 2**16))
def test_a_range_that_any_stream_claims_is_whole_in_the_union(world: World, seed: int) -> None:
    pick = random.Random(seed)
    merged = contents(micros(merge(world, pick)))
    truth = world.true_rows()
    united: dict[str, list[tuple[int, int]]] = {}
    for stream in world.streams:
        for ticker, found in claims_of(stream, world, pick).items():
            united[ticker] = union([*united.get(ticker, []), *found])
    for key, count in truth.items():
        if covers(united.get(str(key[1]), []), key[0]):
            assert merged[key] == count


def test_quiet_markets_are_claimed_for_most_of_their_time() -> None:
    claimed = possible = quiet = 0
    for seed in range(20):
        world = World(seed, 100, 2, 0.02)
        span = world.published[-1].ts - world.published[0].ts
        moving = Counter(delta.ticker for delta in world.published)
        for stream in world.streams:
            found = claims_of(stream, world, world.random)
            claimed += sum(length(each) for each in found.values())
            quiet += any(found.get(ticker) for ticker in world.index if not moving[ticker])
            possible += span * len({row["ticker"] for row in stream.book_subscriptions})
    assert claimed > 0.05 * possible
    assert quiet > 0


def frames(
    segments: list[tuple[int, int]], members: list[tuple[int, int | None]], deltas: list[tuple[int, int]]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """One stream, one market M; deltas are (seq, time)."""
    return (
        pl.DataFrame([(1, "M", 0, low, high) for low, high in members], schema=MEMBERS, orient="row"),
        pl.DataFrame([(1, low, high) for low, high in segments], schema=NUMBERS, orient="row"),
        pl.DataFrame([(seq, us, "M", 0) for seq, us in deltas], schema=DELTAS, orient="row"),
    )


def test_a_claim_lies_strictly_between_complete_from_and_complete_until() -> None:
    parts = frames([(1, 5)], [(1, None)], [(2, 100), (3, 200), (5, 300)])
    assert claim_intervals(*parts, max_out_of_orderness_us=10) == {"M": [(111, 290)]}


def test_a_gap_without_a_new_snapshot_ends_the_claim() -> None:
    parts = frames([(1, 3), (5, 9)], [(1, None)], [(2, 100), (3, 200), (6, 300), (9, 900)])
    assert claim_intervals(*parts, max_out_of_orderness_us=10) == {"M": [(111, 190)]}


def test_a_newer_snapshot_of_the_same_run_continues_the_claim() -> None:
    two = frames([(1, 9)], [(1, 4), (4, None)], [(2, 100), (3, 200), (6, 300), (9, 900)])
    assert claim_intervals(*two, max_out_of_orderness_us=10) == {"M": [(111, 890)]}
    apart = frames([(1, 9)], [(1, 3), (4, None)], [(2, 100), (3, 200), (6, 300), (9, 900)])
    assert claim_intervals(*apart, max_out_of_orderness_us=10) == {"M": [(111, 190), (311, 890)]}


def test_spans_of_different_markets_are_not_joined() -> None:
    spans = pl.DataFrame(
        [(1, "A", 0, 1, 4), (1, "B", 0, 4, 9), (1, "A", 0, 4, 6), (1, "A", 0, 7, 9)],
        schema={"stream_id": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int32, "seq": pl.Int64,
                "seq_end": pl.Int64},
        orient="row",
    )  # fmt: skip
    joined = join_continued(spans).select("ticker", "seq", "seq_end").rows()
    assert sorted(joined) == [("A", 1, 6), ("A", 7, 9), ("B", 4, 9)]


def test_a_regression_beyond_the_bound_withdraws_the_claims_around_it() -> None:
    deltas = [(2, 100), (3, 500), (4, 300), (5, 600), (6, 595), (7, 900)]
    assert claim_intervals(*frames([(1, 7)], [(1, None)], deltas), max_out_of_orderness_us=10) == {
        "M": [(111, 300), (501, 890)]
    }


def test_a_market_whose_times_go_back_within_the_bound_keeps_its_claim() -> None:
    # The snapshot holds a delta of 110 already, the next one is of 100.
    parts = frames([(1, 5)], [(1, None)], [(2, 100), (3, 200), (5, 300)])
    (found,) = claim_intervals(*parts, max_out_of_orderness_us=10)["M"]
    assert found[0] > 110
