"""The hour that `bench close` makes, small: both ways read all of it, and a close that comes out worse is noticed."""

from __future__ import annotations

from collections.abc import Callable

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.lab.bench.close.benchmark import find_wrong
from kalshi_platform.lab.bench.close.close_data import CloseData
from kalshi_platform.lab.bench.close.naive_close import close_naively
from kalshi_platform.market.times import US_PER_HOUR, datetime_from_us, us_from_datetime
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform_tests.fixtures.merge_world import MergeWorld

HOUR_US = us_from_datetime(SYSTEM_CLOCK.now()) // US_PER_HOUR * US_PER_HOUR - 2 * US_PER_HOUR


def test_the_hour_of_the_benchmark_is_whole_and_a_worse_one_is_not_let_pass(
    merge_world: Callable[..., MergeWorld],
) -> None:
    world = merge_world(3)
    # A delta a second: a connection that begins covers its markets seconds later.
    data = CloseData(truth=3_000, gatherers=3, overlap=0.9, markets=8, hour_us=HOUR_US)
    urls = {name: gatherer.url for name, gatherer in world.gatherers.items()}
    for number, url in enumerate(urls.values()):
        data.fill_gatherer(number, url, SYSTEM_CLOCK)
    data.fill_production(world.production_url, SYSTEM_CLOCK)
    hour = datetime_from_us(HOUR_US)
    assert close_naively(urls, world.production_url, hour) == (8_400, 3_000)
    closed = close_hour(world.settings(), hour, SYSTEM_CLOCK, PartitionBounds())
    assert not any(closed.inserted.values())
    found = {
        "missed": closed.gatherers_missed, "alarms": closed.alarms, "deltas": closed.rows["orderbook_deltas"],
        "failed": len(closed.failed), "covered": closed.coverage.share,
    }  # fmt: skip
    assert find_wrong(found, data) == []
    assert sum(map(data.rows, range(3))) == 8_400
    for name, value in (("missed", ["g2"]), ("deltas", 2_999), ("failed", 1), ("covered", 0.9), ("covered", None)):
        assert len(find_wrong({**found, name: value}, data)) == 1
