"""Claims that are true stand; a stream that lacks a row it claims loses its claim, and takes the others with it."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kalshi_platform.deduplicator.close.overlap import compare_gatherers, find_disagreements, sum_statistics
from kalshi_platform.deduplicator.coverage.claims import claim_intervals, count_claims
from kalshi_platform.deduplicator.coverage.multiset_hash import delta_hashes, row_fingerprints
from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS
from kalshi_platform.deduplicator.coverage.timeline import Timeline, TimelineKeys
from kalshi_platform.deduplicator.coverage.verification.check_books import Checkpoints, PolledBooks
from kalshi_platform.deduplicator.coverage.verification.verify_claims import (
    CLAIM_KEY,
    ProductionHour,
    fail_markets,
    union_of_claims,
    verify_claims,
)
from kalshi_platform.market.intervals import Interval, covers, intersection
from kalshi_platform.market.tables import GATHERER_TABLES
from kalshi_platform_tests.unit.deduplicator.coverage.test_worlds import LONG, merge, micros, world_of, worlds
from kalshi_platform_tests.unit.deduplicator.coverage.truth import (
    DELTA_SCHEMA,
    MARGIN_US,
    Stream,
    World,
    book_subscriptions_of,
    delta_table,
    feed_of,
    segments_of,
)

NOTHING = np.empty(0, dtype=np.int64)
CHECKS = pl.DataFrame(schema={"gatherer": pl.String, **RUN_CHECKS})
EVER = (0, 10_000)


def claims_of(world: World, pick: random.Random, lost: tuple[Stream, dict[str, object]] | None = None) -> pl.DataFrame:
    """What all streams claim; `lost`: a row that a stream lacks without its numbers telling."""
    parts = []
    for stream in world.streams:
        deltas = feed_of(stream, world)
        occurrences = pl.DataFrame(
            [(row["seq"], row["occurrence"]) for row in stream.rows],
            schema={"seq": pl.Int64, "occurrence": pl.Int32}, orient="row",
        )  # fmt: skip
        deltas = deltas.join(occurrences, on="seq")
        if lost is not None and lost[0] is stream:
            deltas = deltas.filter(pl.col("seq") != lost[1]["seq"])
        claimed = claim_intervals(book_subscriptions_of(stream), segments_of(stream, pick), deltas, MARGIN_US)
        rows = [(ticker, *each) for ticker, found in claimed.items() for each in intersection(found, [EVER])]
        claims = pl.DataFrame(rows, schema={"ticker": pl.String, "from_us": pl.Int64, "to_us": pl.Int64}, orient="row")
        known = {ticker: number for number, ticker in enumerate(sorted({*claims["ticker"], *deltas["ticker"]}))}
        timeline = TimelineKeys(EVER[0])
        keys = timeline.key(number_of(deltas, known), deltas["exchange_us"].to_numpy())
        counted = count_claims(claims, number_of(claims, known), timeline, keys, row_fingerprints(deltas))
        parts.append(counted.with_columns(gatherer=pl.lit(stream.gatherer), stream_id=pl.lit(stream.stream_id)))
    return pl.concat(parts).with_columns(withdrawn=pl.lit(None, pl.String))


def number_of(rows: pl.DataFrame, known: dict[str, int]) -> npt.NDArray[np.int64]:
    return np.array([known.setdefault(ticker, len(known)) for ticker in rows["ticker"]], dtype=np.int64)


def two_streams(starts: tuple[int, int], withdrawn: tuple[str | None, str | None] = (None, None)) -> pl.DataFrame:
    """Claims of A to the end, without rows, of g1 (stream 1) and g2 (stream 2)."""
    rows = [
        (f"g{number}", number, "A", start, 10_000, 0, 0, reason)
        for number, start, reason in zip((1, 2), starts, withdrawn, strict=True)
    ]
    names = [*CLAIM_KEY, "rows", "content"]
    return pl.DataFrame(rows, schema=[*names, ("withdrawn", pl.String)], orient="row")


def checkpointed_at(*moments: int) -> ProductionHour:
    """An hour of A without a delta, with as many checkpoints, each of another book."""
    none = NOTHING.astype(np.uint64)
    sums = np.arange(100, 100 + len(moments), dtype=np.uint64)
    return ProductionHour(
        ["A"],
        Timeline(0, NOTHING, NOTHING, none, none),
        Checkpoints(np.zeros(len(moments), dtype=np.int64), np.array(moments, dtype=np.int64), sums),
        PolledBooks(NOTHING, NOTHING, NOTHING, none),
    )


def hour_of(world: World, pick: random.Random) -> ProductionHour:
    rows = micros(merge(world, pick))
    kinds = {"ts": pl.Int64, "ticker": pl.String, "side": pl.String, "price_e4": pl.Int32, "delta_e2": pl.Int64,
             "occurrence": pl.Int32}  # fmt: skip
    frame = pl.DataFrame([{name: row[name] for name in kinds} for row in rows], schema=kinds, orient="row")
    frame = frame.rename({"ts": "exchange_us"})
    tickers = {name: number for number, name in enumerate(world.index)}
    market = number_of(frame, tickers)
    timeline = Timeline(0, market, frame["exchange_us"].to_numpy(), delta_hashes(frame), row_fingerprints(frame))
    empty = NOTHING.astype(np.uint64)
    return ProductionHour(
        list(tickers), timeline, Checkpoints(NOTHING, NOTHING, empty), PolledBooks(NOTHING, NOTHING, NOTHING, empty)
    )


@settings(worlds, max_examples=5_000 if LONG else 60)
@given(world=world_of, seed=st.integers(0, 2**16))
def test_no_true_claim_is_ever_withdrawn_and_coverage_is_their_union(world: World, seed: int) -> None:
    pick = random.Random(seed)
    claims = claims_of(world, pick)
    judged = verify_claims(claims, CHECKS, hour_of(world, pick))
    assert judged.claims["withdrawn"].null_count() == claims.height
    assert judged.alarms == []
    truth = world.true_rows()
    held = {(row["ts"], row["ticker"]) for row in micros(merge(world, pick))}
    for key in truth:
        if covers(judged.coverage.get(str(key[1]), []), key[0]):
            assert (key[0], key[1]) in held


@settings(worlds, max_examples=5_000 if LONG else 60)
@given(world=world_of, seed=st.integers(0, 2**16))
def test_a_stream_that_lacks_a_row_of_its_claim_withdraws_all_claims_of_that_time(world: World, seed: int) -> None:
    pick = random.Random(seed)
    stream = pick.choice(world.streams)
    assume(stream.rows)
    lost = pick.choice(stream.rows)
    moment, ticker = int(str(lost["exchange_ts"])), str(lost["ticker"])
    claims = claims_of(world, pick, (stream, lost))
    # Production has the row: from another stream, or from this one before it forgot it.
    judged = verify_claims(claims, CHECKS, hour_of(world, pick))
    mine = (pl.col("ticker") == ticker) & (pl.col("from_us") <= moment) & (pl.col("to_us") > moment)
    false = claims.filter(mine & (pl.col("gatherer") == stream.gatherer) & (pl.col("stream_id") == stream.stream_id))
    if false.is_empty():
        assert judged.alarms == []
        return
    assert not covers(judged.coverage.get(ticker, []), moment)
    assert [alarm[:2] for alarm in judged.alarms] == [("claims_disagree", ticker)]
    others = judged.claims.filter(pl.col("ticker") != ticker)
    assert others["withdrawn"].null_count() == others.height


@pytest.mark.parametrize("moments", [(1_000, 1_000), (1_000, 2_000)])
def test_streams_whose_books_contradict_each_other_both_lose_what_they_claim_behind_them(
    moments: tuple[int, int],
) -> None:
    judged = verify_claims(two_streams((moments[0] + 1, moments[1] + 1)), CHECKS, checkpointed_at(*moments))
    assert judged.coverage == {}
    assert [alarm[:2] for alarm in judged.alarms] == [("book_proof", "A")]
    assert judged.proofs.select("verdict", "checkpoint_failures", "covered_us").row(0) == ("failed", 1, 0)


def test_a_withdrawn_claim_of_an_unreadable_stream_stays_withdrawn() -> None:
    own, shared = "g1, stream 1: snapshot 1 does not lead to 13", "the book of 1000 µs does not give that of 2000 µs"
    judged = verify_claims(two_streams((1_001, 2_001), (own, None)), CHECKS, checkpointed_at(1_000))
    assert judged.coverage == {"A": [(2_001, 10_000)]}, "what g1 lost by itself says nothing of g2"
    assert judged.proofs.select("verdict", "detail").row(0) == ("failed", own)
    assert judged.alarms == [("book_proof", "A", own)]
    # What spoke against both of them then speaks against both of them still.
    judged = verify_claims(two_streams((1_001, 2_001), (shared, None)), CHECKS, checkpointed_at(1_000, 2_000))
    assert judged.coverage == {}
    # Nothing is left to be seen of it.
    judged = verify_claims(two_streams((1_001, 2_001), (shared, None)), CHECKS, checkpointed_at())
    assert judged.coverage == {"A": [(2_001, 10_000)]}
    assert judged.claims["withdrawn"].to_list() == [shared, None]
    assert judged.proofs["verdict"].to_list() == ["failed"]


def test_a_market_that_failed_as_a_whole_keeps_no_claim() -> None:
    pick = random.Random(7)
    world = World(3, 100, 2, 0.0)
    judged = verify_claims(claims_of(world, pick), CHECKS, hour_of(world, pick))
    ticker = next(iter(judged.coverage))
    wrong = fail_markets(judged, [ticker], "a level below zero")
    assert ticker not in wrong.coverage
    assert {name: wrong.coverage[name] for name in wrong.coverage} == {
        name: ranges for name, ranges in judged.coverage.items() if name != ticker
    }
    row = wrong.proofs.filter(pl.col("ticker") == ticker).row(0, named=True)
    assert (row["verdict"], row["covered_us"], row["detail"]) == ("failed", 0, "a level below zero")
    assert row["withdrawn_us"] == sum(high - low for low, high in judged.coverage[ticker])
    assert fail_markets(judged, [], "nothing") is judged


def test_ranges_that_touch_are_one_and_withdrawn_claims_do_not_count() -> None:
    rows: list[tuple[str, int, int, str | None]] = [("A", 0, 5, None), ("A", 5, 9, None), ("A", 9, 20, "wrong")]
    claims = pl.DataFrame(rows, schema=["ticker", "from_us", "to_us", "withdrawn"], orient="row")
    expected: dict[str, list[Interval]] = {"A": [(0, 9)]}
    assert union_of_claims(claims) == expected


def test_overlap_is_measured_in_minutes_that_several_gatherers_saw() -> None:
    def rows(times: list[int]) -> list[dict[str, object]]:
        return [
            {"exchange_ts": at, "ticker": "A", "stream_id": 1, "seq": n, "side": "yes", "price_e4": 1, "delta_e2": 1,
             "occurrence": 0, "received_at": at + 1}
            for n, at in enumerate(times)
        ]  # fmt: skip

    minute = 60_000_000
    assert {field.name for field in DELTA_SCHEMA} <= set(GATHERER_TABLES["orderbook_deltas"].names)
    same = list(range(200))
    first = compare_gatherers(
        "orderbook_deltas", {"g1": delta_table(rows([*same, minute])), "g2": delta_table(rows(same))}
    )
    later = compare_gatherers("orderbook_deltas", {"g1": delta_table(rows([5 * minute])), "g2": delta_table([])})
    both = sum_statistics([first, later])
    found = both.select("gatherer", "seen", "unique_rows", "first_observer", "comparable", "agreed").rows()
    # Equal times of receipt: the first name is the first observer. Minutes that only one of them saw tell nothing.
    assert found == [("g1", 202, 2, 202, 200, 200), ("g2", 200, 0, 0, 200, 200)]
    assert find_disagreements(both, 1.0) == []
    apart = compare_gatherers(
        "orderbook_deltas", {"g1": delta_table(rows(same)), "g2": delta_table(rows([at + 1_000 for at in same]))}
    )
    assert [subject for _, subject, _ in find_disagreements(sum_statistics([apart]), 0.9)] == [
        "g1 orderbook_deltas",
        "g2 orderbook_deltas",
    ]
    shards = compare_gatherers(
        "orderbook_deltas",
        {"g1": delta_table(rows(same)), "g2": delta_table([{**row, "ticker": "B"} for row in rows(same)])},
    )
    assert shards.select("gatherer", "unique_rows", "comparable").rows() == [("g1", 200, 0), ("g2", 200, 0)]
    few = compare_gatherers("orderbook_deltas", {"g1": delta_table(rows([1])), "g2": delta_table(rows([2]))})
    assert find_disagreements(sum_statistics([few]), 0.9) == []
