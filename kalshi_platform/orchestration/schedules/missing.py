"""Partitions that are missing, failed or out of date, and the fewest runs that put that right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.orchestration.keys import FORMER_KEYS, HOUR_PARTS
from kalshi_platform.orchestration.partitions import HOUR_DIMENSION, join_ranges, request_range
from kalshi_platform.orchestration.statuses import UNFINISHED

if TYPE_CHECKING:
    from kalshi_platform.lake.settings import LakeSettings

_log = event_logger(__name__)
LOOK_BACK = timedelta(days=7)
LONGEST_RANGE = 24
"""Partitions in one run: a failure costs at most that much repeated work."""


@dataclass(frozen=True)
class PartitionedAssets:
    """Assets that share their time partitions, each `step` long.

    One step makes all assets of `atomic`, so all of them are there or none. A partition of `downstream` is made anew
    whenever the same partition of `atomic` is.
    """

    step: timedelta
    parse_key: Callable[[str], datetime]
    format_key: Callable[[datetime], str]
    atomic: tuple[dg.AssetKey, ...]
    downstream: tuple[dg.AssetKey, ...] = ()

    @property
    def keys(self) -> tuple[dg.AssetKey, ...]:
        """The keys of all assets."""
        return (*self.atomic, *self.downstream)


class Outdated(NamedTuple):
    """Partitions of the lake's assets that are not what production's closes say.

    `exportable`: those that a run puts right; `lost`: those of which production has lost rows, so that none can.
    """

    exportable: Mapping[dg.AssetKey, set[str]] = {}
    lost: Mapping[dg.AssetKey, set[str]] = {}


def request_missing(
    instance: dg.DagsterInstance,
    assets: PartitionedAssets,
    keys: Sequence[str],
    outdated: Outdated,
    stale: Iterable[str] = (),
    find_waiting: Callable[[Mapping[dg.AssetKey, set[str]]], Mapping[dg.AssetKey, set[str]]] = lambda _: {},
) -> list[dg.RunRequest]:
    """Request runs for what is missing of the partitions `keys` and no run is about to make.

    `outdated`: partitions of downstream assets to be made again although they are there, and those that no run makes,
    which are not requested although an attempt has failed; `stale`: partitions to be made again as a whole;
    `find_waiting` returns, of the partitions that assets lack, those that cannot be made yet.
    """
    done = {
        asset: (made - outdated.exportable.get(asset, set())) | outdated.lost.get(asset, set())
        for asset, made in list_materialized(instance, assets, keys).items()
    }
    for asset, waiting in find_waiting({asset: set(keys) - made for asset, made in done.items()}).items():
        done[asset] |= waiting
    return request_runs(assets, missing_partitions(assets, keys, done, stale, in_progress(instance, assets)))


def missing_partitions(
    assets: PartitionedAssets,
    keys: Sequence[str],
    done: Mapping[dg.AssetKey, set[str]],
    stale: Iterable[str] = (),
    busy: Iterable[str] = (),
) -> dict[tuple[dg.AssetKey, ...], list[str]]:
    """Find which assets each partition lacks: selection → partition keys.

    `done` has the partitions that are there, `stale` those to be made anew, `busy` those that a run is about to make.
    """
    missing: dict[tuple[dg.AssetKey, ...], list[str]] = defaultdict(list)
    stale, busy = set(stale), set(busy)
    for key in keys:
        if key in busy:
            continue
        if key in stale or any(key not in done[asset] for asset in assets.atomic):
            selection = assets.keys
        else:
            selection = tuple(asset for asset in assets.downstream if key not in done[asset])
        if selection:
            missing[selection].append(key)
    return dict(missing)


def request_runs(
    assets: PartitionedAssets, missing: Mapping[tuple[dg.AssetKey, ...], Sequence[str]]
) -> list[dg.RunRequest]:
    """Request one run per selection and stretch of neighbouring partitions, in the order of time."""
    found = [
        (first, last, selection)
        for selection, keys in missing.items()
        for first, last in join_ranges(map(assets.parse_key, keys), assets.step, LONGEST_RANGE)
    ]
    return [
        request_range(selection, assets.format_key(first), assets.format_key(last))
        for first, last, selection in sorted(found)
    ]


def list_materialized(
    instance: dg.DagsterInstance, assets: PartitionedAssets, keys: Sequence[str]
) -> dict[dg.AssetKey, set[str]]:
    """List, of `keys`, the partitions of each asset whose latest attempt succeeded.

    Read from the events themselves. Dagster's cache of partition states moves a cursor over event numbers, which become
    visible out of order when runs write side by side, and takes a cancelled attempt for none. What was made under the
    former key of a renamed asset is there, so that an upgrade does not close and export the hours before it again.
    """
    found: dict[dg.AssetKey, set[str]] = {}
    for asset in assets.keys:
        made: set[str] = set()
        for key in filter(None, (FORMER_KEYS.get(asset), asset)):  # the former first: attempts under today's are later
            made |= instance.get_materialized_partitions(key)
            made -= _failed_partitions(instance, key)
        found[asset] = made.intersection(keys)
    return found


def _failed_partitions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> set[str]:
    """Return the partitions whose latest attempt did not succeed."""
    events = instance.event_log_storage
    return set(events.get_latest_asset_partition_materialization_attempts_without_materializations(asset))


def list_outdated(
    lake: LakeSettings,
    production_url: str,
    assets: PartitionedAssets,
    keys: Iterable[str],
    now: datetime,
) -> Outdated:
    """List, of the lake's assets, the partitions that are not what production's closes say.

    Read from the lake's manifests and production, because hours are closed, and files lost, without Dagster. What
    production has lost the rows of is logged too: no run can put it right.
    """
    from kalshi_platform.lake.datasets import DATASETS
    from kalshi_platform.lake.stale import partitions_of, stale_partitions

    tables = {table: dg.AssetKey(["lake", *key.split("/")]) for key, table in DATASETS.items()}
    exported = [table for table, asset in tables.items() if asset in assets.downstream]
    found, lost = defaultdict[dg.AssetKey, set[str]](set), defaultdict[dg.AssetKey, set[str]](set)
    partitions = partitions_of(map(assets.parse_key, keys), now, exported)
    for each in stale_partitions(lake, production_url, partitions):
        kind = found if each.exportable else lost
        kind[tables[each.partition.dataset]].add(assets.format_key(each.partition.start))
        if not each.exportable:
            _log.error(
                "partition_not_exportable",
                table=each.partition.dataset.key,
                partition=each.partition.key,
                reason=each.reason,
                consequence="production has lost rows of it",
                remedy="bring damaged files back from a copy of the lake, or close the hour while gatherers have it",
            )
    return Outdated(found, lost)


def list_waiting(
    lake: LakeSettings,
    production_url: str,
    assets: PartitionedAssets,
    missing_keys: Mapping[dg.AssetKey, set[str]],
    now: datetime,
) -> dict[dg.AssetKey, set[str]]:
    """List, of the partitions that the lake's assets lack, those whose raw hours are not over, or not in the lake yet.

    What is made from raw hours of the lake waits for their export, which the schedule of hours requests.
    """
    from kalshi_platform.lake.datasets import DATASETS
    from kalshi_platform.lake.layout import partition_at, raw_partitions_of
    from kalshi_platform.lake.stale import stale_partitions

    sources = {
        (asset, key): partition
        for data in DATASETS.values()
        if data.builder is not None and (asset := dg.AssetKey(["lake", *data.key.split("/")])) in missing_keys
        for key in missing_keys[asset]
        for partition in [partition_at(data, assets.parse_key(key))]
    }
    raw = {each for partition in sources.values() for each in raw_partitions_of(partition)}
    missing = {each.partition for each in stale_partitions(lake, production_url, raw)} if raw else set()
    waiting: dict[dg.AssetKey, set[str]] = defaultdict(set)
    for (asset, key), partition in sources.items():
        if partition.source_end > now or not missing.isdisjoint(raw_partitions_of(partition)):
            waiting[asset].add(key)
    return dict(waiting)


def in_progress(instance: dg.DagsterInstance, assets: PartitionedAssets) -> set[str]:
    """List the partitions of the assets that runs in progress, or in the queue, are going to make."""
    keys: set[str] = set()
    wanted = set(assets.keys)
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(UNFINISHED))):
        run = record.dagster_run
        if run.asset_selection is None or wanted & set(run.asset_selection) or HOUR_PARTS in run.asset_selection:
            keys |= _partitions_of_run(run.tags, assets)
    return keys


def _partitions_of_run(tags: Mapping[str, Any], assets: PartitionedAssets) -> set[str]:
    # A run of one bucket of an hour is part of what makes the hour.
    single = tags.get(f"dagster/partition/{HOUR_DIMENSION}", tags.get("dagster/partition"))
    first = tags.get("dagster/asset_partition_range_start", single)
    last = tags.get("dagster/asset_partition_range_end", single)
    if first is None or last is None:
        return set()
    try:
        moment, end = assets.parse_key(first), assets.parse_key(last)
    except ValueError:  # a partition of another kind: a gatherer's name, a day
        return set()
    keys = set()
    while moment <= end:
        keys.add(assets.format_key(moment))
        moment += assets.step
    return keys
