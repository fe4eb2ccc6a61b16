"""Partition keys, mappings, ranges, and what a fill asks for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import dagster as dg
import pytest

from kalshi_platform import config
from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.build import CodeLocation, build
from kalshi_platform.orchestration.partitions import (
    day_key,
    hour_key,
    join_ranges,
    make_partitions,
    parse_day_key,
    parse_hour_key,
    request_range,
)
from kalshi_platform.orchestration.schedules.days import DAILY_ASSETS
from kalshi_platform.orchestration.schedules.guards import with_run_keys
from kalshi_platform.orchestration.schedules.hours import HOURLY_ASSETS
from kalshi_platform.orchestration.schedules.missing import (
    LONGEST_RANGE,
    Outdated,
    list_materialized,
    missing_partitions,
    request_missing,
    request_runs,
)

H0 = datetime(2026, 11, 20, 7, tzinfo=UTC)
LOCATION = CodeLocation(config.Role(), ("g1", "g2", "g3"), datetime(2026, 1, 1, tzinfo=UTC))
PARTITIONS = make_partitions(LOCATION.gatherer_names, LOCATION.partitions_start)
HOURS, DAYS = PARTITIONS.hours, PARTITIONS.days


def test_keys_parsed_and_formatted_again_are_those_of_dagster() -> None:
    assert hour_key(H0) == "2026-11-20-07:00"
    assert parse_hour_key("2026-11-20-07:00") == H0
    assert parse_day_key(day_key(H0)) == datetime(2026, 11, 20, tzinfo=UTC)
    now = H0 + timedelta(minutes=30)
    assert HOURS.get_partition_keys(now)[-1] == "2026-11-20-06:00", "only hours that have ended are partitions"
    assert DAYS.get_partition_keys(now)[-1] == "2026-11-19"


def test_an_hour_of_production_depends_on_every_gatherer() -> None:
    graph = build(LOCATION).get_repository_def().asset_graph
    node = graph.get(keys.production("trades"))
    mapping = node.partition_mappings[keys.gatherer("trades")]
    upstream = mapping.get_upstream_mapped_partitions_result_for_partitions(
        HOURS.subset_with_partition_keys(["2026-11-20-06:00"]),
        HOURS,
        cast(Any, graph.get(keys.gatherer("trades")).partitions_def),
        current_time=H0,
    )
    assert set(upstream.partitions_subset.get_partition_keys()) == set(LOCATION.gatherer_names)


def test_a_day_depends_on_its_24_hours() -> None:
    graph = build(LOCATION).get_repository_def().asset_graph
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
def test_neighbouring_hours_are_joined_up_to_the_longest_range(
    offsets: list[int], expected: list[tuple[int, int]]
) -> None:
    joined = join_ranges((H0 + HOUR * offset for offset in offsets), HOUR, LONGEST_RANGE)
    assert joined == [(H0 + HOUR * low, H0 + HOUR * high) for low, high in expected]


def test_a_range_is_requested_as_one_run() -> None:
    request = request_range([keys.production("trades")], "2026-11-20-05:00", "2026-11-20-07:00")
    assert request.partition_key is None
    assert request.tags["dagster/asset_partition_range_start"] == "2026-11-20-05:00"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-11-20-07:00"
    assert request_range([keys.production("trades")], "a", "a").partition_key == "a"


A, B, C = (dg.AssetKey(name) for name in "abc")
ASSETS = replace(HOURLY_ASSETS, atomic=(A,), downstream=(B, C))
K = [hour_key(H0 + HOUR * offset) for offset in range(4)]
ALL = {A: set(K), B: set(K), C: set(K)}


def test_partitions_that_are_all_there_give_nothing_missing() -> None:
    assert missing_partitions(ASSETS, K, ALL) == {}


def test_a_missing_export_is_requested_alone() -> None:
    assert missing_partitions(ASSETS, K, {**ALL, C: {K[0], K[1], K[3]}}) == {(C,): [K[2]]}


def test_a_missing_hour_is_requested_with_its_exports() -> None:
    assert missing_partitions(ASSETS, K, {**ALL, A: set(K[1:])}) == {(A, B, C): [K[0]]}


def test_a_stale_hour_is_requested_with_its_exports() -> None:
    assert missing_partitions(ASSETS, K, ALL, stale=[K[1]]) == {(A, B, C): [K[1]]}


def test_a_partition_of_a_run_in_progress_is_not_requested_again() -> None:
    assert missing_partitions(ASSETS, K, {A: set(), B: set(), C: set()}, stale=K, busy=K[:3]) == {(A, B, C): [K[3]]}


def test_a_stale_day_that_is_there_is_requested_again() -> None:
    days = ["2026-11-18", "2026-11-19"]
    assets = replace(DAILY_ASSETS, downstream=(A, B))
    assert missing_partitions(assets, days, {A: set(days), B: set(days)}, stale=days[:1]) == {(A, B): days[:1]}


def test_missing_partitions_give_one_run_per_stretch() -> None:
    wanted = missing_partitions(ASSETS, K, {**ALL, A: {K[2]}, B: set(K[:2])})
    asked = request_runs(ASSETS, wanted)
    assert [
        (
            tuple(request.asset_selection or ()),
            request.partition_key,
            request.tags.get("dagster/asset_partition_range_end"),
        )
        for request in asked
    ] == [((A, B, C), None, K[1]), ((B,), K[2], None), ((A, B, C), K[3], None)]


def test_missing_days_give_one_run_of_days() -> None:
    assets = replace(DAILY_ASSETS, downstream=(A, B))
    days = ["2026-11-18", "2026-11-19"]
    asked = request_runs(assets, missing_partitions(assets, days, {A: set(), B: set()}))
    assert [request.tags["dagster/asset_partition_range_end"] for request in asked] == ["2026-11-19"]


def _record_materialized(instance: dg.DagsterInstance, asset: dg.AssetKey, *hours: datetime) -> None:
    for hour in hours:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=hour_key(hour)))


def test_hours_made_under_the_former_keys_of_renamed_assets_are_not_requested_again() -> None:
    checkpoints, exported = keys.production("book_checkpoints"), keys.lake("raw/book_checkpoints")
    former = {
        checkpoints: keys.production("book_anchors"),
        exported: keys.lake("raw/book_anchors"),
        keys.production("coverage"): keys.production("orderbook_deltas"),
    }
    before, since = [hour_key(H0), hour_key(H0 + HOUR)], hour_key(H0 + 2 * HOUR)
    assert former == keys.FORMER_KEYS
    with dg.DagsterInstance.ephemeral() as instance:
        for asset in HOURLY_ASSETS.keys:
            _record_materialized(instance, former.get(asset, asset), H0, H0 + HOUR)
        found = list_materialized(instance, HOURLY_ASSETS, [*before, since])
        assert found == {asset: set(before) for asset in HOURLY_ASSETS.keys}
        requests = request_missing(instance, HOURLY_ASSETS, [*before, since], Outdated())
        assert [request.partition_key for request in requests] == [since]
        for asset in HOURLY_ASSETS.keys:
            _record_materialized(instance, asset, H0 + 2 * HOUR)
        assert not request_missing(instance, HOURLY_ASSETS, [*before, since], Outdated())
        # Today's export of the new version takes the place of the former, and is asked for by the lake's own record.
        requests = request_missing(instance, HOURLY_ASSETS, [*before, since], Outdated({exported: {before[1]}}))
        assert [request.asset_selection for request in requests] == [[exported]]
        # What no run can make is not requested hour after hour.
        gone = hour_key(H0 + 3 * HOUR)
        for asset in set(HOURLY_ASSETS.keys) - {exported}:
            _record_materialized(instance, asset, H0 + 3 * HOUR)
        assert len(request_missing(instance, HOURLY_ASSETS, [gone], Outdated())) == 1
        assert not request_missing(instance, HOURLY_ASSETS, [gone], Outdated(lost={exported: {gone}}))


def test_schedule_gives_each_of_several_requests_a_key_and_other_ones_in_the_next_tick() -> None:
    wanted = {(A,): ["2026-11-20-05:00", "2026-11-20-07:00"], (A, B): ["2026-11-20-05:00"]}
    found = []
    for at in (H0, H0 + HOUR):
        context = dg.build_schedule_context(scheduled_execution_time=at)
        requests = with_run_keys(context, request_runs(ASSETS, wanted))
        found += [request.run_key for request in requests]
        assert [request.partition_key for request in requests] == [
            request.partition_key for request in request_runs(ASSETS, wanted)
        ]
    assert len(set(found)) == len(found) == 6
