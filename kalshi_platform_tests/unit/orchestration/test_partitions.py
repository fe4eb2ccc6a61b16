"""Partition keys, mappings, ranges, and what a fill asks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import dagster as dg
import pytest

from kalshi_platform import config
from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.build import build
from kalshi_platform.orchestration.partitions import (
    DAY,
    DAYS,
    HOURS,
    day_key,
    day_of,
    hour_key,
    hour_of,
    range_request,
    ranges,
)
from kalshi_platform.orchestration.schedules.missing import LONGEST_RANGE, Stage, lacking, requests

H0 = datetime(2026, 11, 20, 7, tzinfo=UTC)


def test_keys_and_moments_are_each_others_inverse_and_those_of_dagster() -> None:
    assert hour_key(H0) == "2026-11-20-07:00"
    assert hour_of("2026-11-20-07:00") == H0
    assert day_of(day_key(H0)) == datetime(2026, 11, 20, tzinfo=UTC)
    now = H0 + timedelta(minutes=30)
    assert HOURS.get_partition_keys(now)[-1] == "2026-11-20-06:00", "only hours that have ended are partitions"
    assert DAYS.get_partition_keys(now)[-1] == "2026-11-19"


def test_an_hour_of_production_depends_on_every_gatherer() -> None:
    graph = build(config.Role()).get_repository_def().asset_graph
    node = graph.get(keys.production("trades"))
    mapping = node.partition_mappings[keys.gatherer("trades")]
    upstream = mapping.get_upstream_mapped_partitions_result_for_partitions(
        HOURS.subset_with_partition_keys(["2026-11-20-06:00"]),
        HOURS,
        cast(Any, graph.get(keys.gatherer("trades")).partitions_def),
        current_time=H0,
    )
    assert set(upstream.partitions_subset.get_partition_keys()) == set(config.gatherer_names())


def test_a_day_depends_on_its_24_hours() -> None:
    graph = build(config.Role()).get_repository_def().asset_graph
    node = graph.get(keys.lake("processed/trades"))
    mapping = node.partition_mappings.get(keys.lake("raw/trades"), dg.TimeWindowPartitionMapping())
    upstream = mapping.get_upstream_mapped_partitions_result_for_partitions(
        DAYS.subset_with_partition_keys(["2026-11-19"]), DAYS, HOURS, current_time=H0
    )
    wanted = list(upstream.partitions_subset.get_partition_keys())
    assert (len(wanted), wanted[0], wanted[-1]) == (24, "2026-11-19-00:00", "2026-11-19-23:00")


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([], []),
        ([3], [(3, 3)]),
        ([1, 0, 2], [(0, 2)]),
        ([0, 1, 3, 4, 4], [(0, 1), (3, 4)]),
        (list(range(30)), [(0, 23), (24, 29)]),
    ],
)
def test_neighbouring_hours_are_joined(offsets: list[int], expected: list[tuple[int, int]]) -> None:
    joined = ranges((H0 + HOUR * offset for offset in offsets), HOUR, LONGEST_RANGE)
    assert joined == [(H0 + HOUR * low, H0 + HOUR * high) for low, high in expected]


def test_a_range_is_one_run() -> None:
    request = range_request([keys.production("trades")], "2026-11-20-05:00", "2026-11-20-07:00")
    assert request.partition_key is None
    assert request.tags["dagster/asset_partition_range_start"] == "2026-11-20-05:00"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-11-20-07:00"
    assert range_request([keys.production("trades")], "a", "a").partition_key == "a"


A, B, C = (dg.AssetKey(name) for name in "abc")
STAGE = Stage(HOURS, (A,), (B, C))
K = [hour_key(H0 + HOUR * offset) for offset in range(4)]
ALL = {A: set(K), B: set(K), C: set(K)}


def test_nothing_lacks_when_all_is_there() -> None:
    assert lacking(STAGE, K, ALL) == {}


def test_a_missing_export_is_asked_for_alone() -> None:
    assert lacking(STAGE, K, {**ALL, C: {K[0], K[1], K[3]}}) == {(C,): [K[2]]}


def test_a_missing_hour_brings_its_exports_along() -> None:
    assert lacking(STAGE, K, {**ALL, A: set(K[1:])}) == {(A, B, C): [K[0]]}


def test_late_rows_make_an_hour_anew() -> None:
    assert lacking(STAGE, K, ALL, stale=[K[1]]) == {(A, B, C): [K[1]]}


def test_what_a_run_is_about_to_make_is_not_asked_for_again() -> None:
    assert lacking(STAGE, K, {A: set(), B: set(), C: set()}, stale=K, busy=K[:3]) == {(A, B, C): [K[3]]}


def test_a_stale_day_is_made_anew_though_it_is_there() -> None:
    days = ["2026-11-18", "2026-11-19"]
    stage = Stage(DAYS, (), (A, B))
    assert lacking(stage, days, {A: set(days), B: set(days)}, stale=days[:1]) == {(A, B): days[:1]}


def test_requests_are_one_run_per_stretch() -> None:
    wanted = lacking(STAGE, K, {**ALL, A: {K[2]}, B: set(K[:2])})
    asked = requests(wanted, hour_of, HOUR)
    assert [
        (
            tuple(request.asset_selection or ()),
            request.partition_key,
            request.tags.get("dagster/asset_partition_range_end"),
        )
        for request in asked
    ] == [((A, B, C), None, K[1]), ((B,), K[2], None), ((A, B, C), K[3], None)]


def test_days_are_asked_for_by_day() -> None:
    stage = Stage(DAYS, (), (A, B))
    days = ["2026-11-18", "2026-11-19"]
    asked = requests(lacking(stage, days, {A: set(), B: set()}), day_of, DAY, day_key)
    assert [request.tags["dagster/asset_partition_range_end"] for request in asked] == ["2026-11-19"]
