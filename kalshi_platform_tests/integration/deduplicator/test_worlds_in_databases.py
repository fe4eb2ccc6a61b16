"""What random worlds work out in memory is what the real databases hold.

Rows, claims, checkpoints, and a close of the hour that finds nothing wrong in what is true.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.coverage.gatherer_hour import read_claims
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.gatherer.ingest.batch_commit import commit_records
from kalshi_platform.market.intervals import Interval, union
from kalshi_platform.market.times import datetime_from_us, hour_of, us_from_datetime
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform_tests.fixtures.gatherer_hours import checkpoints_of
from kalshi_platform_tests.fixtures.merge_world import MergeWorld
from kalshi_platform_tests.unit.worlds.derive import derive
from kalshi_platform_tests.unit.worlds.moments import Moment
from kalshi_platform_tests.unit.worlds.tables import GathererTables
from kalshi_platform_tests.unit.worlds.venue import MARGIN_US, START_US, Shape
from kalshi_platform_tests.unit.worlds.world import World

HOUR = hour_of(datetime_from_us(START_US))
SHAPE = Shape(length=90, gatherers=2, shards=2, cut=0.03, kill=0.03, ask=0.05, loss=0.01, steps_back=True)
ODD = Shape(length=90, gatherers=2, cut=0.01, ask=0.02, loss=0.005, odd=0.2, hidden=0.01)
EVER = (-1_000, 10**6)
MOST_PASSES = 100
LONG = os.environ.get("KALSHI_HYPOTHESIS") == "long"
# Worlds live at a fixed time, wherever the clock of this machine stands.
BOUNDS = PartitionBounds(ahead=timedelta(days=365 * 50))


@pytest.mark.parametrize("shape", [SHAPE, ODD], ids=["faults", "unknown messages"])
@pytest.mark.parametrize("seed", range(20) if LONG else [1])
def test_databases_say_what_the_world_says(seed: int, shape: Shape, merge_world: Callable[..., MergeWorld]) -> None:
    world = World(seed, shape)
    made = merge_world(len(world.gatherers))
    for gatherer in world.gatherers:
        _live_again(gatherer.tables, made, gatherer.name)
    settings = made.settings(max_out_of_orderness_us=MARGIN_US, rows_per_pass=40)
    passes = 1
    while merge_new(settings, SYSTEM_CLOCK, BOUNDS).behind:
        passes += 1
        assert passes < MOST_PASSES
    rows = made.rows(
        "SELECT (extract(epoch FROM exchange_ts) * 1000000)::bigint, ticker, side, price_e4, delta_e2, occurrence"
        " FROM orderbook_deltas"
    )
    assert Counter(rows) == Counter(world.production.rows)

    last: Moment = world.moments[-1]
    last.windows = [EVER]
    derive([last])
    assert last.claims
    assert _claims(made) == {ticker: found for ticker, found in sorted(last.claims.items()) if found}

    assert last.checkpoints
    expected = Counter((each.ticker, each.time, tuple(sorted(each.book.items()))) for each in last.checkpoints)
    assert _checkpoints(made) == expected

    closed = close_hour(settings, HOUR, SYSTEM_CLOCK, BOUNDS, final=False)
    assert not any(closed.inserted.values())
    assert (closed.failed, closed.alarms) == ((), ())
    assert _coverage(made) == last.claims


def _live_again(tables: GathererTables, made: MergeWorld, name: str) -> None:
    """Write everything that a gatherer of the world wrote, in the same commits."""
    database = made.gatherers[name].database
    keeper = PartitionKeeper(database, BOUNDS, SYSTEM_CLOCK)
    for each in tables.history:
        commit_records(database, keeper, name, each)


def _claims(made: MergeWorld) -> Mapping[str, list[Interval]]:
    low, high = (datetime_from_us(START_US + edge) for edge in EVER)
    found: dict[str, list[Interval]] = {}
    for source in made.settings().sources:
        for ticker, intervals in read_claims(source, low, high, MARGIN_US).items():
            found.setdefault(ticker, []).extend((start - START_US, end - START_US) for start, end in intervals)
    return {ticker: union(parts) for ticker, parts in sorted(found.items()) if parts}


def _coverage(made: MergeWorld) -> Mapping[str, list[Interval]]:
    found: dict[str, list[Interval]] = {}
    rows = made.rows(
        f"SELECT ticker, (extract(epoch FROM from_ts) * 1000000)::bigint - {START_US},"
        f" (extract(epoch FROM to_ts) * 1000000)::bigint - {START_US} FROM coverage ORDER BY 1, 2"
    )
    for ticker, start, end in rows:
        found.setdefault(ticker, []).append((start, end))
    return found


def _checkpoints(made: MergeWorld) -> Counter[tuple[str, int, tuple[tuple[tuple[str, int], int], ...]]]:
    found: Counter[tuple[str, int, tuple[tuple[tuple[str, int], int], ...]]] = Counter()
    for source in made.settings().sources:
        for row in checkpoints_of(source, HOUR, MARGIN_US, 1_000).iter_rows(named=True):
            book = {
                (side, price): size
                for side in ("yes", "no")
                for price, size in zip(row[f"{side}_price_e4"], row[f"{side}_count_e2"], strict=True)
            }
            found[row["ticker"], us_from_datetime(row["checkpoint_ts"]) - START_US, tuple(sorted(book.items()))] += 1
    return found
