"""Random worlds of losses, cuts and equal deltas: nothing doubled, nothing missing where one run saw it, no wrong book.

`KALSHI_HYPOTHESIS=long` tries many more worlds.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kalshi_platform.deduplicator.coverage.checkpoints import fold_checkpoints, locate
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import clip_to_range, merge_segments
from kalshi_platform.deduplicator.merge.deduplicate import deduplicate
from kalshi_platform.market.identity import DELTA_KEY
from kalshi_platform_tests.unit.deduplicator.coverage.truth import (
    MARGIN_US,
    Levels,
    Stream,
    World,
    book_subscriptions_of,
    delta_table,
    feed_of,
    levels_of,
    segments_of,
)

LONG = os.environ.get("KALSHI_HYPOTHESIS") == "long"
worlds = settings(
    max_examples=20_000 if LONG else 80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=not LONG,
)
world_of = st.builds(
    World,
    seed=st.integers(0, 2**32),
    length=st.integers(5, 120),
    gatherers=st.integers(1, 3),
    loss=st.sampled_from((0.0, 0.02, 0.1, 0.3)),
)
Production = dict[tuple[object, ...], dict[str, Any]]


def merge(world: World, pick: random.Random) -> Production:
    """Merge all rows in passes of any size, gatherers in any order, some of them twice."""
    waiting = {}
    for gatherer in {stream.gatherer for stream in world.streams}:
        rows = [row for stream in world.streams if stream.gatherer == gatherer for row in stream.rows]
        waiting[gatherer] = rows
    production: Production = {}
    repeat = dict(waiting)
    while any(waiting.values()) or repeat:
        taken = {}
        for gatherer in list(waiting):
            count = pick.randint(0, 40)
            taken[gatherer], waiting[gatherer] = waiting[gatherer][:count], waiting[gatherer][count:]
        if not any(waiting.values()):
            waiting, repeat = (dict(repeat), {}) if pick.random() < 0.5 else (waiting, {})
        parts = {gatherer: delta_table(rows) for gatherer, rows in taken.items() if rows}
        if not parts:
            continue
        united = deduplicate("orderbook_deltas", parts)
        keys = [tuple(row[name] for name in DELTA_KEY) for row in united.to_dicts()]
        assert len(set(keys)) == len(keys)
        for key, row in zip(keys, united.to_dicts(), strict=True):
            production.setdefault(key, row)
    return production


def micros(rows: Production) -> list[dict[str, Any]]:
    frame = pl.DataFrame(list(rows.values())) if rows else None
    return [] if frame is None else frame.with_columns(ts=pl.col("exchange_ts").dt.epoch("us")).to_dicts()


def contents(rows: list[dict[str, Any]]) -> Counter[Any]:
    return Counter((row["ts"], row["ticker"], row["side"], row["price_e4"], row["delta_e2"]) for row in rows)


@worlds
@given(world=world_of, seed=st.integers(0, 2**16))
def test_the_union_holds_nothing_twice_and_all_that_a_run_saw_whole(world: World, seed: int) -> None:
    pick = random.Random(seed)
    merged = contents(micros(merge(world, pick)))
    truth = world.true_rows()
    assert all(count <= truth[key] for key, count in merged.items())
    for stream in world.streams:
        of_runs = merge_segments(segments_of(stream, pick))
        for span in clip_to_range(book_subscriptions_of(stream), of_runs).to_dicts():
            times = [
                row["exchange_ts"]
                for row in stream.rows
                if row["ticker"] == span["ticker"] and span["seq"] < row["seq"] <= span["seq_end"]
            ]
            for key, count in truth.items():
                if key[1] == span["ticker"] and times and min(times) < key[0] < max(times):
                    assert merged[key] == count


@worlds
@given(world=world_of, seed=st.integers(0, 2**16))
def test_every_book_from_a_checkpoint_is_the_true_one(world: World, seed: int) -> None:
    pick = random.Random(seed)
    merged = micros(merge(world, pick))
    for stream in world.streams[:2]:
        of_runs = merge_segments(segments_of(stream, pick))
        claimed = clip_to_range(book_subscriptions_of(stream), of_runs)
        for checkpoint, span_end_us in checkpoints_of(world, stream, claimed):
            book = book_of(checkpoint)
            assert book == world.book(checkpoint["ticker"], checkpoint["complete_from_us"])
            running = Counter(book)
            for row in merged:
                if row["ticker"] == checkpoint["ticker"] and checkpoint["complete_from_us"] < row["ts"] < span_end_us:
                    running[row["side"], row["price_e4"]] += row["delta_e2"]
            held = {level: count for level, count in running.items() if count}
            assert held == world.book(checkpoint["ticker"], span_end_us - 1)


@settings(worlds, max_examples=20_000 if LONG else 60)
@given(world=world_of, seed=st.integers(0, 2**16))
def test_reading_a_stream_in_windows_gives_the_same_checkpoints(world: World, seed: int) -> None:
    pick = random.Random(seed)
    for stream in world.streams[:1]:
        feed = feed_of(stream, world)
        claimed = clip_to_range(book_subscriptions_of(stream), merge_segments(segments_of(stream, pick)))
        whole = locate(claimed, feed, 10**9, MARGIN_US)
        assert whole.pending.is_empty()
        found, pending, read_to = [], claimed, 0
        while pending.height:
            read_to += pick.randint(1, 60)
            window = locate(
                pending.filter(pl.col("seq") < read_to), feed.filter(pl.col("seq") <= read_to), read_to, MARGIN_US
            )
            found.append(window.found)
            pending = pl.concat([window.pending, pending.filter(pl.col("seq") >= read_to)])
        united = pl.concat([whole.found.clear(), *found]).sort("seq", "ticker")
        assert united.equals(whole.found)


def test_the_worlds_are_not_empty() -> None:
    """The properties above would also hold where nothing is claimed: here much is."""
    checkpointed = quiet = claims = snapshots = 0
    for seed in range(20):
        world = World(seed, 100, 2, 0.02)
        for stream in world.streams:
            claimed = clip_to_range(book_subscriptions_of(stream), merge_segments(segments_of(stream, world.random)))
            snapshots += len(stream.snapshots)
            claims += claimed.height
            for checkpoint, _ in checkpoints_of(world, stream, claimed):
                checkpointed += 1
                quiet += not any(row["ticker"] == checkpoint["ticker"] for row in stream.rows)
    assert claims > 0.9 * snapshots
    assert checkpointed > 0.1 * snapshots
    assert quiet > 0


def checkpoints_of(world: World, stream: Stream, claimed: pl.DataFrame) -> list[tuple[dict[str, Any], int]]:
    """Each checkpoint with E, the end of what its span claims, worked out from the plain definition."""
    feed = feed_of(stream, world)
    located = locate(claimed, feed, 10**9, MARGIN_US)
    found = fold_checkpoints(located.found, levels_of(stream), feed).to_dicts()
    assert len(found) == located.found.height
    ends = {(row["ticker"], row["seq"]): row["seq_end"] for row in claimed.to_dicts()}
    result = []
    for checkpoint in found:
        inside = [
            row
            for row in feed.to_dicts()
            if checkpoint["seq"] < row["seq"] <= ends[checkpoint["ticker"], checkpoint["seq"]]
            and row["exchange_index"] == world.index[checkpoint["ticker"]]
        ]
        all_times = [row["exchange_us"] for row in inside]
        start, end = min(all_times) + MARGIN_US, max(all_times) - MARGIN_US
        assert checkpoint["complete_from_us"] == start < end
        result.append((checkpoint, end))
    return result


def book_of(checkpoint: dict[str, Any]) -> Levels:
    book: Levels = {}
    for side in ("yes", "no"):
        prices, counts = checkpoint[f"{side}_price_e4"], checkpoint[f"{side}_count_e2"]
        assert prices == sorted(prices)
        book |= {(side, price): count for price, count in zip(prices, counts, strict=True)}
    return book
