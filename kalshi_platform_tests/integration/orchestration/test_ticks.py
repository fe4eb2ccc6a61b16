"""A small operation by schedules: an hour closes and is exported, a damaged file is found and exported again."""

from __future__ import annotations

from datetime import timedelta

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lake.layout import partition_path
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.stale import stale_lately
from kalshi_platform.lake.store import open_store
from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration.in_process_ticks import InProcessTicks
from kalshi_platform.orchestration.partitions import hour_key
from kalshi_platform_tests.integration.orchestration.conftest import Platform, hour


def test_schedules_close_an_hour_and_repair_a_damaged_file_of_it(platform: Platform) -> None:
    platform.seed(3)
    key = hour_key(hour(3))
    ticks = InProcessTicks()
    end = hour(3) + HOUR
    assert (end + timedelta(minutes=5), "close_hours_schedule") in ticks.due(end, end + timedelta(minutes=5))
    closed = ticks.evaluate("close_hours_schedule", end + timedelta(minutes=5))
    assert [(run.job, run.success, run.partitions) for run in closed.runs] == [("close_hours", True, (key,))]
    folder = platform.lake / partition_path("raw", "trades", hour(3).date(), hour(3).hour)
    (file,) = folder.glob("part-*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    found = ticks.evaluate("fill_missing_partitions", end + timedelta(minutes=20))
    assert [(run.success, run.partitions, run.assets) for run in found.runs] == [(True, (key,), ("lake/raw/trades",))]
    assert not [tick.error for tick in ticks.evaluate_sensors(end) if tick.error]
    lake = open_store(LakeSettings(f"file://{platform.lake}"))
    assert stale_lately(lake, platform.world.production_url, SYSTEM_CLOCK.now()) == []
    assert ticks.evaluate("fill_missing_partitions", end + timedelta(minutes=20)).runs == []
